#!/usr/bin/env python3
"""Checks the imports of every crate: no cycles between files or folders, and no imports through the crate root.

    python3 .ci/import_cycles.py [CHECKOUT]

Reads `use` declarations and inline paths (`crate::a::B`, `super::b()`, `child::C`), follows re-exports to the file that
defines the item, and ignores code under `#[cfg(test)]`. A `mod.rs` and its own children may use each other. Exits with
1 if it finds a fault. Each run first checks itself on a crate with one fault of each kind.
"""

import re
import sys
import tempfile
from pathlib import Path

IDENT = r"[A-Za-z_][A-Za-z0-9_]*"
PATH = re.compile(rf"(?<![\w:.'])(?:r#)?{IDENT}(?:\s*::\s*{IDENT})+")


def strip(text):
    """Blanks out comments, strings and character literals, and keeps line breaks."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\(?:x..|u\{[^}]*\}|.)|[^\'\\])\'', re.S
    )
    return token.sub(lambda m: "\n" * m.group().count("\n") if m.group().startswith("/") else '""' , text)


def block_end(text, start):
    """Returns the end of the item that begins at `start`: its semicolon or its closing brace."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if depth == 0:
                return place + 1
        elif text[place] == ";" and depth == 0:
            return place + 1
    return len(text)


def without_tests(text):
    for pattern in (r"#\[cfg\(test\)\]", r"#\[cfg\(all\(test[^\]]*\]"):
        while found := re.search(pattern, text):
            end = block_end(text, found.end())
            text = text[: found.start()] + re.sub(r"[^\n]", "", text[found.start() : end]) + text[end:]
    return text


def expand(tree):
    """Yields (path, binding) for a use tree such as `a::{b, c as d, e::*}`."""
    tree = tree.strip()
    if "{" in tree:
        head, rest = tree.split("{", 1)
        depth, part, parts = 0, "", []
        for char in rest[: rest.rindex("}")]:
            depth += (char == "{") - (char == "}")
            if char == "," and depth == 0:
                parts.append(part)
                part = ""
            else:
                part += char
        for part in [*parts, part]:
            if part.strip():
                yield from expand(head.strip() + part.strip())
        return
    path, _, name = re.sub(r"\s+", " ", tree).partition(" as ")
    segments = [segment.strip() for segment in path.split("::") if segment.strip()]
    if segments and segments[-1] == "self":
        segments.pop()
    yield segments, name.strip() or (segments[-1] if segments else "")


class Crate:
    def __init__(self, root):
        self.root = root
        main = root / "lib.rs" if (root / "lib.rs").exists() else root / "main.rs"
        self.files = {}  # module path -> file
        self.texts = {}
        self.load((), main)
        self.imports = {module: self.uses(module) for module in self.files}

    def load(self, module, file):
        self.files[module] = file
        self.texts[module] = text = without_tests(strip(file.read_text()))
        folder = file.parent if file.name in ("mod.rs", "lib.rs", "main.rs") else file.with_suffix("")
        for name in re.findall(rf"\bmod\s+({IDENT})\s*;", text):
            for child in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if child.exists():
                    self.load((*module, name), child)

    def uses(self, module):
        """Returns the bindings of the file's `use` declarations as {name: absolute path}, with globs under '*'."""
        bindings = {"*": []}
        for tree in re.findall(r"\buse\s+([^;]+);", self.texts[module]):
            for path, name in expand(tree):
                absolute = self.absolute(module, path)
                if absolute is None:
                    continue
                if path[-1] == "*":
                    bindings["*"].append(absolute[:-1])
                elif name != "_":
                    bindings[name] = absolute
        return bindings

    def absolute(self, module, path):
        """Returns the absolute path within the crate, or None for paths into other crates."""
        if not path:
            return None
        if path[0] == "crate":
            return tuple(path[1:])
        if path[0] in ("self", "super"):
            base, path = list(module), list(path)
            while path and path[0] in ("self", "super"):
                if path.pop(0) == "super":
                    base = base[:-1]
            return tuple(base + path)
        if (*module, path[0]) in self.files:
            return (*module, *path)
        return None

    def resolve(self, path, seen=()):
        """Returns the module that defines the item at `path`, following re-exports."""
        length = max(n for n in range(len(path) + 1) if path[:n] in self.files)
        module, rest = path[:length], path[length:]
        if not rest or (module, rest[0]) in seen:
            return module
        seen = (*seen, (module, rest[0]))
        if (target := self.imports[module].get(rest[0])) is not None and target != path:
            return self.resolve((*target, *rest[1:]), seen)
        if not re.search(rf"\b(struct|enum|trait|type|fn|const|static|union|macro_rules!)\s+{rest[0]}\b", self.texts[module]):
            for glob in self.imports[module]["*"]:
                found = self.resolve((*glob, *rest), seen)
                if re.search(rf"\b(struct|enum|trait|type|fn|const|static)\s+{rest[0]}\b", self.texts[found]):
                    return found
        return module

    def edges(self):
        """Returns the graph {module: {used module: path as written}}, and the paths through the crate root."""
        graph, through_root = {module: {} for module in self.files}, set()
        for module in self.files:
            for path in self.used_paths(module):
                target = self.resolve(path)
                if module and target and path[:1] not in self.files:
                    through_root.add((module, "::".join(path)))
                if target != module:
                    graph[module].setdefault(target, "::".join(path))
        return graph, through_root

    def used_paths(self, module):
        """Yields the absolute path of each item of this crate that the file uses; `pub use` does not count."""
        text = self.texts[module]
        body = re.sub(r"\buse\s+[^;]+;", "", text)
        for public, tree in re.findall(r"(pub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);", text):
            for path, name in [] if public else expand(tree):
                absolute = self.absolute(module, path)
                # The loop below finds the uses of an imported module's items.
                if absolute and not (absolute in self.files and re.search(rf"\b{name}\s*::", body)):
                    yield absolute[:-1] if path[-1] == "*" else absolute
        for match in PATH.finditer(body):
            path = re.split(r"\s*::\s*", match.group())
            bound = self.imports[module].get(path[0])
            absolute = (*bound, *path[1:]) if bound in self.files else self.absolute(module, path)
            if absolute:
                yield absolute


def cycles(graph):
    """Returns the strongly connected components with more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = []
            while True:
                component.append(stack.pop())
                if component[-1] == node:
                    break
            if len(component) > 1:
                found.append(component)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def describe(name, kind, component, graph):
    lines = [f"{name}: {kind} cycle of {len(component)}"]
    for source in sorted(component):
        for target in sorted(set(component) & set(graph[source])):
            lines.append(f"    {'/'.join(source)} -> {'/'.join(target)}  ({graph[source][target]})")
    return "\n".join(lines)


def faults_of(root, name):
    """Yields a description of each fault in the crate whose sources are in `root`."""
    graph, through_root = Crate(root).edges()
    files = {module: {t: via for t, via in targets.items() if t != module[:-1]} for module, targets in graph.items()}
    for component in cycles(files):
        yield describe(name, "file", component, files)
    for module, path in sorted(set(through_root)):
        yield f"{name}: {'/'.join(module)} imports crate::{path} through the crate root"
    folders = {module[:1]: {} for module in graph}
    for module, targets in graph.items():
        for target, via in targets.items():
            if module and target and module[0] != target[0]:
                folders[module[:1]].setdefault(target[:1], f"{'/'.join(module)}: {via}")
    for component in cycles(folders):
        yield describe(name, "folder", component, folders)


FAULTY = {
    "lib.rs": "mod a; mod b; mod x; mod y; mod z; pub use a::A;",
    "a.rs": "use crate::b::B; pub struct A(B);",
    "b.rs": "use crate::a; pub enum B { Leaf, Node(Box<a::A>) }",  # a file cycle
    "x/mod.rs": "mod one; mod two; pub struct X; pub use one::One;",
    "x/one.rs": "use super::X; pub struct One(X); fn f() { crate::y::f() }",  # a folder cycle, by an inline path
    "x/two.rs": "pub struct Two;",
    "y/mod.rs": "mod deep; pub fn f() {} // use crate::z::Z;",
    "y/deep.rs": "use crate::x::{self as other}; fn g(_: other::One) {}",
    "z.rs": "use crate::A; #[cfg(test)] mod tests { use crate::y::f; }",  # through the crate root
}


def check_itself():
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FAULTY.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        faults = list(faults_of(Path(folder), "planted"))
    heads = [fault.splitlines()[0] for fault in faults]
    expected = ["planted: file cycle of 2", "planted: z imports crate::A through the crate root"]
    expected += ["planted: folder cycle of 2"] * 2
    assert sorted(heads) == sorted(expected), heads


def main():
    check_itself()
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    roots = [*sorted(checkout.glob("src/*/src")), *(checkout / part / "src" for part in ("kernels", "bench", "tests"))]
    faults = [fault for root in roots for fault in faults_of(root, str(root.parent.relative_to(checkout)))]
    print("\n".join([*faults, f"{len(roots)} crates, {len(faults)} faults"]))
    sys.exit(bool(faults))


main()
