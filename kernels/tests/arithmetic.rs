//! The recorded arithmetic is what the program prints.

#[path = "../examples/arithmetic.rs"]
#[allow(dead_code, unreachable_pub)]
mod arithmetic;

#[test]
fn the_recorded_page_is_up_to_date() {
    let recorded = std::fs::read_to_string("../bench/results/arithmetic.md").expect("bench/results/arithmetic.md");
    assert!(recorded == arithmetic::page(), "run the example again: its first lines say how");
}
