//! Checks that the recorded arithmetic is the program's output.

#[path = "../examples/arithmetic.rs"]
#[allow(dead_code, unreachable_pub)]
mod arithmetic;

#[test]
fn the_recorded_page_is_up_to_date() {
    let recorded = std::fs::read_to_string("../bench/results/arithmetic.md").expect("bench/results/arithmetic.md");
    assert!(
        recorded == arithmetic::page(),
        "bench/results/arithmetic.md is out of date; run the command at the top of examples/arithmetic.rs"
    );
}
