//! A model of the rules of dying: every order of events in small worlds, with the program's own decisions and keys.
//!
//! With all rules in force no order breaks a promise. With any one of them off the search finds an order that does, which
//! shows that the rule is needed and that the search would see its absence. Rule 9 is about copies of the host, of which
//! the model knows nothing. Rule 8 is here as the order of a generation change.
//! `real` lets the same events happen in the program and compares.

mod algebra;
mod check;
mod event;
mod mark;
mod real;
mod scenes;
mod search;
mod shred;
mod world;

use std::io::Write as _;

use search::{Explored, explore};
use world::{Rule, Scene};

use crate::support::announce::{LONG, switched_on};

pub fn tell(line: &str) {
    // The harness captures the print macros, but not a handle.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Explores a scene and requires that nothing is broken; with `--long` in all its states.
fn holds_in(scene: &Scene) {
    let is_long = switched_on(LONG).is_some();
    let (states, trees) = if is_long { (2_000_000, 5_000) } else { (60_000, 150) };
    let explored = explore(scene, None, states, trees);
    let Explored { states, steps, depth, is_whole, trees, frames, .. } = &explored;
    let end = if *is_whole { "all there are" } else { "as far as it went" };
    tell(&format!(
        "model, {}: {states} states ({end}), {steps} steps, {depth} events deep; {frames} frames tried with every key, {trees} key trees",
        scene.name
    ));
    assert!(explored.found.is_none(), "{:?}", explored.found);
    assert!(*states > 1000 && *trees > 4 && (*is_whole || !is_long), "{explored:?}");
}

#[test]
fn no_order_of_events_breaks_a_promise_about_holds() {
    holds_in(&scenes::hold());
}

#[test]
fn no_order_of_events_breaks_a_promise_about_requests() {
    holds_in(&scenes::request());
}

#[test]
fn no_order_of_events_breaks_a_promise_about_retention() {
    holds_in(&scenes::retention());
}

#[test]
fn no_order_of_events_breaks_a_promise_in_grace() {
    holds_in(&scenes::grace());
}

#[test]
fn no_order_of_events_breaks_a_promise_in_a_long_life() {
    holds_in(&scenes::long_life());
}

#[test]
fn no_order_of_events_breaks_a_promise_while_old_roots_wait_for_their_date() {
    holds_in(&scenes::delayed());
}

#[test]
fn no_order_of_events_breaks_a_promise_while_a_restore_runs() {
    holds_in(&scenes::reader());
}

#[test]
fn without_any_one_rule_some_order_breaks_a_promise() {
    let mut missed = Vec::new();
    for rule in Rule::ALL {
        let scenes = match rule {
            Rule::Delay | Rule::Remember => vec![scenes::delayed()],
            Rule::Reread => vec![scenes::reader()],
            _ => scenes::all().to_vec(),
        };
        let found = scenes.iter().find_map(|scene| {
            let explored = explore(scene, Some(rule), 150_000, 0);
            explored.found.map(|found| (scene.name, explored.states, found))
        });
        match found {
            Some((scene, states, found)) => tell(&format!(
                "model, without rule {rule:?} ({scene}, {states} states): {}\n  {:?}",
                found.what, found.trace
            )),
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "no search misses {missed:?}");
}
