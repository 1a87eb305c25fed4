//! Job files, good and bad; bad ones by the full text of their errors.

use std::fs;

use super::*;

const ZONE: Tz = chrono_tz::Asia::Shanghai;

fn errors(name: &str, text: &str) -> String {
    Faults(parse_job(Path::new(name), text, ZONE).unwrap_err()).to_string()
}

#[test]
fn a_share_to_read_is_one_to_a_hundred_and_for_verify_alone() {
    let job = parse_job(Path::new("v.toml"), "task = \"verify\"\nschedule = \"@daily\"\nsample = 25\n", ZONE).unwrap();
    assert!(matches!(job.task, Task::Verify { sample: Some(25), .. }), "{job:?}");
    for wrong in ["task = \"verify\"\nsample = 0", "task = \"verify\"\nsample = 101", "task = \"shred\"\nsample = 25"] {
        let said = errors("v.toml", &format!("{wrong}\nschedule = \"@daily\"\n"));
        assert!(said.contains("sample"), "{said}");
    }
}

#[test]
fn reads_a_job() {
    let text = "task = \"verify\"\nschedule = \"@monthly\"\ntimezone = \"Europe/Zurich\"\nmissed = \"skip\"\n\
                missed_grace = \"0\"\ntimeout = \"2 days\"\ntargets = [\"erased\"]\n";
    let job = parse_job(Path::new("jobs/again.toml"), text, ZONE).unwrap();
    assert_eq!((job.name.as_str(), job.missed), ("again", Missed::Skip));
    assert_eq!(job.task, Task::Verify { targets: vec![VerifyTarget::Erased], sample: None });
    assert_eq!((job.missed_grace, job.timeout), (Duration::ZERO, Duration::from_hours(48)));
    assert_eq!((job.cron.zone(), job.cron.text()), (chrono_tz::Europe::Zurich, "@monthly"));
}

#[test]
fn every_fault_of_a_file_is_told() {
    let text = "task = \"retention\"\nschedule = \"0 0 30 2 *\"\ntimezone = \"Asia/Shangai\"\ntimeout = \"6 ours\"\nstores = [\"shop\"]\n";
    assert_eq!(
        errors("expire.toml", text),
        "\
expire.toml:2:12: no time ever matches this schedule
   |
 2 | schedule = \"0 0 30 2 *\"
   |            ^^^^^^^^^^^^
   = do: see crontab(5); for example `0 3 * * 0` is Sunday 03:00

expire.toml:3:12: unknown time zone `Asia/Shangai`
   |
 3 | timezone = \"Asia/Shangai\"
   |            ^^^^^^^^^^^^^^
   = do: did you mean `Asia/Shanghai`? use a name of the IANA time zone database, such as `Asia/Shanghai`

expire.toml:4:11: `6 ours` is no length of time
   |
 4 | timeout = \"6 ours\"
   |           ^^^^^^^^
   = do: write for example `90 seconds`, `10 minutes`, `6 hours` or `2 days`

expire.toml:5:10: this task has no `stores`
   |
 5 | stores = [\"shop\"]
   |          ^^^^^^^^
   = do: remove it; it knows `policies`"
    );
}

#[test]
fn unknown_keys_and_tasks_are_told() {
    assert_eq!(
        errors("a.toml", "tsk = \"backup\"\nschedule = \"@daily\"\n"),
        "\
a.toml:1:1: unknown key `tsk`
   |
 1 | tsk = …
   | ^^^
   = do: did you mean `task`?

a.toml:1:1: the key `task` is missing
   |
 1 | tsk = …
   | ^
   = do: add `task = …` here"
    );
    assert_eq!(
        errors("a.toml", "task = \"bakup\"\nschedule = \"@daily\"\n"),
        "\
a.toml:1:8: `bakup` is no value for `task`
   |
 1 | task = \"bakup\"
   |        ^^^^^^^
   = do: did you mean `backup`?"
    );
    assert_eq!(
        errors("Nightly.toml", "task = \"shred\"\nschedule = \"@daily\"\n"),
        "\
Nightly.toml:1:8: `Nightly` cannot be a job's name
   |
 1 | task = \"shred\"
   |        ^^^^^^^
   = do: rename the file: 1 to 64 of a-z, 0-9, `-` and `_`, then `.toml`"
    );
}

#[test]
fn names_that_differ_by_case_or_ending_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = "task = \"shred\"\nschedule = \"@hourly\"\n";
    for name in ["shred.toml", "Shred.toml", "shred.yaml", "OTHER.TOML"] {
        fs::write(folder.path().join(name), job).unwrap();
    }
    fs::write(folder.path().join("README.md"), "words").unwrap();
    let error = load_folder(folder.path(), ZONE).unwrap_err().to_string();
    let expected = [
        "shred.toml: `Shred.toml` has the same name but for upper and lower case",
        "OTHER.TOML: not read as a job",
        "shred.yaml: not read as a job",
    ];
    for expected in expected {
        assert!(error.contains(expected), "{error}");
    }
    assert!(!error.contains("README"), "{error}");
}

#[test]
fn missing_folder_is_told() {
    let error = load_folder(Path::new("/nonexistent/jobs"), ZONE).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the job folder `/nonexistent/jobs`");
}

#[test]
fn shipped_jobs_load() {
    let jobs = load_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs"), ZONE).unwrap();
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let expected = [
        "backup-full",
        "backup-nightly",
        "drill",
        "outbox",
        "prune",
        "requests",
        "retention",
        "roll-up",
        "shred",
        "verify",
    ];
    assert_eq!(names, expected);
    assert!(jobs.iter().all(|job| job.cron.zone() == ZONE));
}

#[test]
fn lengths_of_time() {
    assert_eq!(parse_span("90 seconds"), Some(Duration::from_secs(90)));
    assert_eq!(parse_span("10min"), Some(Duration::from_mins(10)));
    for wrong in ["", "10", "-1 hours", "1.5 hours", "400 days", "99999999999999999999 s", "hours"] {
        assert_eq!(parse_span(wrong), None, "{wrong}");
    }
}

#[test]
fn schema_is_published() {
    crate::config::schema::check_published("job.schema.json", &job_schema());
}
