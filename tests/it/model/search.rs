//! Breadth first over all orders of events, so that the first violation found has the shortest trace.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use super::algebra::Algebra;
use super::check::violation;
use super::event::{Event, apply, following, possible};
use super::world::{Rule, Scene, World};

/// A violation and how it came about.
#[derive(Debug, Clone)]
pub struct Found {
    pub trace: Vec<Event>,
    pub what: String,
}

/// What a search went through.
#[derive(Debug, Clone, Default)]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    /// Whether nothing was left to look at.
    pub is_whole: bool,
    pub trees: usize,
    pub frames: u64,
    pub found: Option<Found>,
}

/// 128 bits of a state: at ten million states the chance that two of them collide is below 10^-24.
fn fingerprint(world: &World) -> (u64, u64) {
    let one = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        world.hash(&mut hasher);
        hasher.finish()
    };
    (one(1), one(2))
}

/// Explores a scene with a rule switched off, or none, up to so many states.
pub fn explore(scene: &Scene, off: Option<Rule>, most_states: usize, most_trees: usize) -> Explored {
    let mut result = Explored::default();
    let mut algebra = Algebra::new(most_trees);
    let first = World::new(scene);
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut came: Vec<(usize, Event, usize)> = vec![(0, Event::Tick, 0)];
    let mut waiting = VecDeque::from([(first, 0_usize)]);
    while let Some((world, at)) = waiting.pop_front() {
        result.depth = came[at].2;
        if seen.len() >= most_states {
            result.states = seen.len();
            return result.with(&algebra);
        }
        for event in possible(&world, scene, off) {
            let (next, broken) = step(&world, scene, event, off, &mut algebra, &mut result.steps);
            if let Some(what) = broken {
                let mut trace = vec![event];
                let mut of = at;
                while of > 0 {
                    trace.push(came[of].1);
                    of = came[of].0;
                }
                trace.reverse();
                result.states = seen.len();
                result.found = Some(Found { trace, what });
                return result.with(&algebra);
            }
            if seen.insert(fingerprint(&next)) {
                came.push((at, event, came[at].2 + 1));
                waiting.push_back((next, came.len() - 1));
            }
        }
    }
    result.is_whole = true;
    result.states = seen.len();
    result.with(&algebra)
}

/// One event, and in a coarse scene all that follows by itself, with what it breaks.
fn step(
    world: &World,
    scene: &Scene,
    event: Event,
    off: Option<Rule>,
    algebra: &mut Algebra,
    steps: &mut usize,
) -> (World, Option<String>) {
    let (mut before, mut event) = (world.clone(), event);
    loop {
        let mut after = before.clone();
        apply(&mut after, scene, event, off);
        *steps += 1;
        let changes_keys = off.is_none() && matches!(event, Event::Rekey | Event::Finish | Event::Seal);
        let broken = violation(&before, &after, scene, event, off)
            .or_else(|| if changes_keys { algebra.differs(&after) } else { None });
        match following(&after) {
            Some(next) if scene.coarse && broken.is_none() => (before, event) = (after, next),
            _ => return (after, broken),
        }
    }
}

impl Explored {
    fn with(mut self, algebra: &Algebra) -> Self {
        (self.trees, self.frames) = (algebra.trees(), algebra.frames);
        self
    }
}
