"""Independent steps of one check."""


def run(name, steps):
    """Runs every step, even if one fails, and raises one error that lists all failures."""
    failures = []
    for title, step in steps.items():
        try:
            step()
            print(f"{name}: {title}")
        except Exception as error:
            failures.append(f"{name}: NOT {title}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)
