//! Every operation that the program logs, written down once more: the letter and the OCSF class that its entries must have.

/// Letter, class, operations.
pub const LOGGED: &[(&str, u64, &[&str])] = &[
    // Looks at customers and at what is kept of them, and what was handed out.
    ("R", 6005, &["explain", "request.look", "request.show", "certificate.about", "verify.erased", "verify.residue"]),
    ("R", 6005, &["log.export", "certificate.export", "evidence-pack.make"]),
    ("R", 3004, &["request.list", "hold.list", "run.list", "run.show", "media.list", "media.show", "log.query"]),
    ("R", 3004, &["certificate.list", "certificate.show", "certificate.trace", "incident.list"]),
    ("R", 6003, &["command.refused"]),
    ("R", 3002, &["audit.refused"]),
    ("W", 6005, &["restore.begin", "restore.end"]),
    ("W", 3004, &["request.new", "plan.new", "hold.place", "key.register", "backup.run", "drill.run", "report.make"]),
    ("W", 3004, &["certificate.issue", "media.record", "media.lost", "alert.off-hours", "incident.open"]),
    ("M", 6005, &["run.undo", "store.settle"]),
    ("M", 3004, &["agent.hold", "agent.resume", "run.pause", "run.resume", "run.stop", "run.tune", "plan.approve"]),
    (
        "M",
        3004,
        &["request.again", "request.cancel", "request.resume", "hold.release", "key.move", "certificate.refile"],
    ),
    ("M", 3004, &["signing.rotate", "signing.revoke", "state.recover", "clock.confirm", "token.retry-pin"]),
    ("M", 3004, &["incident.add", "incident.close"]),
    // Somebody else took a deletion back.
    ("M", 3004, &["key.destruction-called-off"]),
    ("D", 6005, &["run.begin", "run.end"]),
    ("D", 3004, &["backup.prune", "backup.remove", "key.shred", "key.destroy-root", "key.root-gone", "log.prune"]),
    ("D", 3004, &["key.outside", "key.outside-gone", "key.unregister"]),
];

/// The letter and the class of an operation.
pub fn expected(operation: &str) -> Option<(&'static str, u64)> {
    let place = LOGGED.iter().find(|(_, _, names)| names.contains(&operation));
    place.map(|(letter, class, _)| (*letter, *class))
}
