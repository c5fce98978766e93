//! `--dashboard` where there can be none.

use crate::place::Place;

#[test]
fn what_the_dashboard_needs_is_said_before_anything_is_made() {
    let place = Place::new();
    let answer = place.call("run tiny.toml --dashboard").refuses();
    let expected = if cfg!(feature = "dashboard") {
        "error: --dashboard: needs a terminal for its input and its output"
    } else {
        "error: --dashboard: the dashboard is not in this build"
    };
    assert!(answer.starts_with(expected), "{answer}");
    assert!(!place.path("runs").exists());
}
