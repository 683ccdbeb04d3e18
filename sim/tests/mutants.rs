//! Planted bugs: each is planted somewhere.
//!
//! They are played by `cargo run --release -p kalends-sim --features mutants -- mutants`, which `scripts/test` does.

#![allow(clippy::disallowed_methods)] // the sources are read, to see where each is planted

use std::fs;
use std::path::Path;

use kalends_core::mutant::Mutant;

/// All the text of Rust files below `folder`, but that of the list itself.
fn sources(folder: &Path, text: &mut String) {
    let entries = fs::read_dir(folder).expect("a folder of sources");
    for entry in entries {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("mutant.rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn every_mistake_is_planted_somewhere() {
    let mut text = String::new();
    let sim = Path::new(env!("CARGO_MANIFEST_DIR"));
    sources(&sim.join("../core/src"), &mut text);
    sources(&sim.join("src"), &mut text);
    let is_planted = |mutant: &&Mutant| {
        let call = format!("planted(Mutant::{})", mutant.variant());
        !text.contains(&call)
    };
    let missing: Vec<&Mutant> = Mutant::ALL.iter().filter(is_planted).collect();
    assert!(missing.is_empty(), "listed and not planted: {missing:?}");
}

/// A bug that was there once and is planted now: the plan that showed it must show it still.
#[cfg(feature = "mutants")]
#[test]
fn the_kept_plan_shows_the_sync_that_began_early() {
    use kalends_core::mutant::plant;
    use kalends_sim::invariants::Invariant;
    use kalends_sim::plan::Plan;

    let file = "plans/regressions/heard-after-an-early-sync.json";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let plan = Plan::from_json(&text.expect("a kept plan")).expect("a plan");
    let _planted = plant(Some(Mutant::PushNotLookedAfter));
    let failed = kalends_sim::world::run(&plan).failed;
    let broken = failed.map(|failed| failed.violation.invariant);
    assert_eq!(broken, Some(Invariant::HeardIsSynced));
}
