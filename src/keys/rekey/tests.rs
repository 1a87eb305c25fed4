//! Every state that recovery may meet, and every crash of the protocol.

use std::collections::BTreeSet;

type Effect<'d, S> = Box<dyn FnOnce(&mut S) + 'd>;

use super::*;

/// Every slot content, committed generation and intent with generations up to 4.
fn each_state(mut check: impl FnMut(&[Generation], Generation, Option<RekeyIntent>)) {
    for bits in 0_u32..16 {
        let usable: Vec<Generation> = (1..=4).filter(|generation| bits >> (generation - 1) & 1 == 1).collect();
        for committed in 0..=4 {
            check(&usable, committed, None);
            for (from, to) in (0..=4).flat_map(|from| (0..=5).map(move |to| (from, to))) {
                for begun in RekeyStep::ALL {
                    check(&usable, committed, Some(RekeyIntent { from, to, begun }));
                }
            }
        }
    }
}

#[test]
fn no_state_leads_to_a_dangerous_action() {
    let mut seen = 0_u32;
    each_state(|usable, committed, intent| {
        seen += 1;
        let state = (usable, committed, intent);
        match recover(usable, committed, intent) {
            RecoveryAction::Nothing => {
                let expected: &[Generation] = if committed == 0 { &[] } else { &[committed] };
                assert_eq!((usable, intent), (expected, None));
            }
            RecoveryAction::DestroyUnusedSlot { generation } => {
                let intent = intent.unwrap();
                assert_eq!((generation, committed), (intent.to, intent.from), "{state:?}");
                assert!(intent.begun <= RekeyStep::CommitCrown);
                assert!(intent.begun < RekeyStep::CopyToSecondPlace || !usable.contains(&generation), "{state:?}");
            }
            RecoveryAction::FinishFrom { step, destroy } => {
                let in_force = intent.map_or(committed, |intent| intent.to);
                assert!(usable.contains(&in_force), "what is gone on with must open: {state:?}");
                assert!(destroy.iter().all(|generation| *generation < in_force && *generation > 0), "{state:?}");
                assert!(destroy.is_sorted());
                let old_roots = usable.iter().filter(|generation| **generation < in_force);
                for old in old_roots {
                    assert!(destroy.contains(old), "no old root is forgotten: {state:?}");
                    assert!(step <= RekeyStep::VerifyReload, "never destroyed before it was verified: {state:?}");
                }
                if committed < in_force {
                    assert_eq!(step, RekeyStep::CopyToSecondPlace, "{state:?}");
                }
            }
            RecoveryAction::RefuseMissingRoot { generation } => {
                assert!(generation == committed && !usable.contains(&generation), "{state:?}");
            }
            RecoveryAction::RefuseUnknownRoot { generation } => {
                assert!(usable.contains(&generation) && generation > committed, "{state:?}");
                assert!(intent.is_none_or(|intent| generation > intent.to), "{state:?}");
            }
            RecoveryAction::RefuseContradiction(_) => assert!(intent.is_some(), "{state:?}"),
        }
    });
    assert_eq!(seen, 16 * 5 * (1 + 30 * 11));
}

#[test]
fn what_each_step_leads_to() {
    use RekeyStep as S;
    let intent = |begun| Some(RekeyIntent { from: 6, to: 7, begun });
    let unused = RecoveryAction::DestroyUnusedSlot { generation: 7 };
    let finish = |step| RecoveryAction::FinishFrom { step, destroy: vec![6] };
    for begun in [S::RecordIntent, S::CreateSlot, S::WriteNodes] {
        assert_eq!(recover(&[6], 6, intent(begun)), unused);
        assert_eq!(recover(&[6, 7], 6, intent(begun)), unused);
        assert_eq!(recover(&[7], 6, intent(begun)), RecoveryAction::RefuseMissingRoot { generation: 6 });
        let early = RecoveryAction::RefuseContradiction(Contradiction::CommittedTooEarly);
        assert_eq!(recover(&[6, 7], 7, intent(begun)), early);
    }
    for begun in [S::CopyToSecondPlace, S::CommitCrown] {
        assert_eq!(recover(&[6, 7], 6, intent(begun)), finish(S::CopyToSecondPlace));
        assert_eq!(recover(&[6], 6, intent(begun)), unused);
    }
    for begun in [S::CommitCrown, S::VerifyReload, S::FenceReaders, S::DestroyOldSlot] {
        assert_eq!(recover(&[6, 7], 7, intent(begun)), finish(S::VerifyReload));
        assert_eq!(recover(&[7], 7, intent(begun)), finish(S::VerifyReload));
    }
    for (begun, step) in
        [(S::VerifyGone, S::VerifyGone), (S::RecordEvidence, S::VerifyGone), (S::CollectOldNodes, S::CollectOldNodes)]
    {
        assert_eq!(recover(&[7], 7, intent(begun)), finish(step));
        assert_eq!(recover(&[6, 7], 7, intent(begun)), finish(S::VerifyReload), "an old root has come back");
        let absent = RecoveryAction::RefuseContradiction(Contradiction::BeyondAnAbsentCommit);
        assert_eq!(recover(&[6, 7], 6, intent(begun)), absent);
    }
    assert_eq!(recover(&[6], 7, intent(S::DestroyOldSlot)), RecoveryAction::RefuseMissingRoot { generation: 7 });
}

#[test]
fn an_old_or_empty_control_database_destroys_nothing() {
    assert_eq!(recover(&[57], 0, None), RecoveryAction::RefuseUnknownRoot { generation: 57 });
    assert_eq!(recover(&[57], 56, None), RecoveryAction::RefuseUnknownRoot { generation: 57 });
    assert_eq!(recover(&[56, 57], 56, None), RecoveryAction::RefuseUnknownRoot { generation: 57 });
    let older = RekeyIntent { from: 55, to: 56, begun: RekeyStep::WriteNodes };
    assert_eq!(recover(&[57], 55, Some(older)), RecoveryAction::RefuseUnknownRoot { generation: 57 });
    let back = RecoveryAction::FinishFrom { step: RekeyStep::VerifyReload, destroy: vec![3, 5] };
    assert_eq!(recover(&[5, 3, 6], 6, None), back, "roots that came back from a copy");
}

#[test]
fn codes_are_unique_and_steps_go_on_in_order() {
    for (at, step) in RekeyStep::ALL.into_iter().enumerate() {
        assert_eq!(RekeyStep::from_code(step.code()), Some(step));
        assert_eq!(step.onwards().collect::<Vec<_>>(), RekeyStep::ALL[at..]);
    }
    assert_eq!(RekeyStep::from_code("other"), None);
}

/// The durable state that the protocol works on.
#[derive(Clone)]
struct Site {
    slot: BTreeSet<Generation>,
    committed: Generation,
    /// Generations whose nodes and crown are stored.
    stored: BTreeSet<Generation>,
    second_place: BTreeSet<Generation>,
    intent: Option<RekeyIntent>,
    evidence: BTreeSet<Generation>,
}

/// A crash: the budget of durable effects is used up.
struct Crash;

/// Counts durable effects down to a crash.
struct Budget(u32);

impl Budget {
    fn spend(&mut self) -> Result<(), Crash> {
        self.0 = self.0.checked_sub(1).ok_or(Crash)?;
        Ok(())
    }
}

impl Site {
    fn new(generation: Generation) -> Self {
        let all: BTreeSet<_> = (generation > 0).then_some(generation).into_iter().collect();
        Self {
            slot: all.clone(),
            committed: generation,
            stored: all.clone(),
            second_place: all,
            intent: None,
            evidence: BTreeSet::new(),
        }
    }

    fn begin(&mut self, step: RekeyStep, budget: &mut Budget) -> Result<(), Crash> {
        budget.spend()?;
        if let Some(intent) = &mut self.intent {
            intent.begun = intent.begun.max(step);
        }
        Ok(())
    }

    fn go_on(&mut self, first: RekeyStep, destroy: &[Generation], budget: &mut Budget) -> Result<(), Crash> {
        for step in first.onwards() {
            self.begin(step, budget)?;
            let to = self.intent.map_or(self.committed, |intent| intent.to);
            let mut effects: Vec<Effect<'_, Self>> = Vec::new();
            match step {
                RekeyStep::CreateSlot => effects.push(Box::new(move |site| _ = site.slot.insert(to))),
                RekeyStep::WriteNodes => effects.push(Box::new(move |site| _ = site.stored.insert(to))),
                RekeyStep::CopyToSecondPlace => effects.push(Box::new(move |site| _ = site.second_place.insert(to))),
                RekeyStep::CommitCrown => effects.push(Box::new(move |site| site.committed = to)),
                RekeyStep::VerifyReload => self.assert_opens(),
                RekeyStep::DestroyOldSlot => {
                    for old in destroy {
                        effects.push(Box::new(move |site: &mut Self| _ = site.slot.remove(old)));
                    }
                }
                RekeyStep::VerifyGone => assert!(destroy.iter().all(|old| !self.slot.contains(old))),
                RekeyStep::RecordEvidence => effects.push(Box::new(move |site| _ = site.evidence.insert(to))),
                RekeyStep::CollectOldNodes => {
                    effects.push(Box::new(move |site| site.stored.retain(|generation| *generation >= to)));
                    effects.push(Box::new(|site| site.intent = None));
                }
                RekeyStep::RecordIntent | RekeyStep::FenceReaders => {}
            }
            for effect in effects {
                budget.spend()?;
                effect(self);
                self.assert_opens();
            }
        }
        Ok(())
    }

    fn shred(&mut self, budget: &mut Budget) -> Result<(), Crash> {
        budget.spend()?;
        let from = self.committed;
        self.intent = Some(RekeyIntent { from, to: from + 1, begun: RekeyStep::RecordIntent });
        self.go_on(RekeyStep::RecordIntent, &[from], budget)
    }

    fn start(&mut self, budget: &mut Budget) -> Result<(), Crash> {
        loop {
            let usable: Vec<Generation> = self.slot.iter().copied().collect();
            match recover(&usable, self.committed, self.intent) {
                RecoveryAction::Nothing => return Ok(()),
                RecoveryAction::DestroyUnusedSlot { generation } => {
                    budget.spend()?;
                    self.slot.remove(&generation);
                    self.assert_opens();
                    budget.spend()?;
                    self.stored.remove(&generation);
                    self.intent = None;
                    self.assert_opens();
                }
                RecoveryAction::FinishFrom { step, destroy } => self.go_on(step, &destroy, budget)?,
                refused => panic!("refused {refused:?}"),
            }
        }
    }

    /// At any instant the generation in force can be opened, and so can the newest one of the second place after the old is gone.
    fn assert_opens(&self) {
        if self.committed > 0 {
            assert!(self.slot.contains(&self.committed), "the root in force is gone");
            assert!(self.stored.contains(&self.committed), "the crown in force is gone");
            let burnt = self.second_place.iter().any(|generation| self.slot.contains(generation));
            assert!(burnt, "the second place cannot be opened");
        }
    }
}

#[test]
fn every_pair_of_crashes_ends_with_one_root_and_an_open_tree() {
    for first_generation in [0, 6] {
        let mut finished_shreds = 0;
        for (first, second) in (0..40).flat_map(|first| (0..40).map(move |second| (first, second))) {
            let mut site = Site::new(first_generation);
            let whole = site.shred(&mut Budget(first)).is_ok();
            finished_shreds += u32::from(whole);
            let _ = site.start(&mut Budget(second));
            assert!(site.start(&mut Budget(1_000)).is_ok());
            site.assert_opens();
            let expected: BTreeSet<_> = (site.committed > 0).then_some(site.committed).into_iter().collect();
            assert_eq!(site.slot, expected);
            assert_eq!(site.intent, None);
            assert_eq!(site.stored, expected, "no node is left over");
            let committed_new = site.committed > first_generation;
            assert_eq!(
                site.evidence.contains(&(first_generation + 1)),
                committed_new,
                "evidence for what was destroyed, only"
            );
            assert!(!whole || committed_new);
            // What was given up can be done after all.
            assert!(site.shred(&mut Budget(1_000)).is_ok());
            site.assert_opens();
        }
        assert!(finished_shreds > 0);
    }
}
