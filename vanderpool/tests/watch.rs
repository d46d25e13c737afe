//! `--explain`, `--stats`, `--trace` and `vanderpool trace`, on the program of the conformance tests: none changes the run, each tells the truth.

mod common;

use common::Run;
use guests::bare;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// The arguments that run the conformance tests.
fn machine() -> Vec<String> {
    let kernel = bare::build("conformance").expect("the program builds").display().to_string();
    ["--kernel", &kernel, "--memory", "64M", "--test-devices", "--no-reboot", "--digest"].map(str::to_owned).into()
}

fn run(first: &[&str], more: &[&str]) -> Run {
    let mut arguments: Vec<String> = first.iter().map(|word| (*word).to_owned()).collect();
    arguments.extend(machine());
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    common::run(&arguments, LIMIT)
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn show(arguments: &[&str]) -> Run {
    common::run(&[&["trace", "show"], arguments].concat(), LIMIT)
}

#[test]
fn watching_changes_nothing_and_names_every_failed_check() {
    let plain = run(&["boot"], &[]);
    plain.expect_status(1);
    let explanations = file("watch-explained.jsonl");
    let path = explanations.to_str().unwrap();
    let watched = run(&["boot"], &["--explain", "--explain-format", "json", "--explain-output", path, "--stats"]);
    watched.expect_status(1);
    assert_eq!(plain.reported("digest:"), watched.reported("digest:"));
    assert_eq!(plain.console, watched.console);
    assert!(watched.errors.contains("VMCALL"), "VM exits are counted by reason:\n{}", watched.errors);
    let text = fs::read_to_string(&explanations).expect("the explanations");
    assert!(text.lines().count() > 50, "{} explanations", text.lines().count());
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
        assert!(value["title"].as_str().is_some_and(|title| !title.is_empty()), "{line}");
        if value["kind"] == "entry-failure" {
            assert!(value["check"]["section"].as_str().is_some_and(|section| section.contains('.')), "{line}");
            assert!(value["remedy"].is_string(), "{line}");
        }
    }
    assert!(text.contains("\"TrType\""), "the check of the example in docs/explain.md");
}

#[test]
fn a_recorded_trace_is_shown_as_it_would_have_been_written() {
    let (records, perfetto, text) = (file("watch.jsonl"), file("watch.json"), file("watch.txt"));
    let [records, perfetto, text] = [&records, &perfetto, &text].map(|path| path.to_str().unwrap());
    run(&["trace", "record", records], &["--filter", "entry,exit,failure"]).expect_status(1);
    run(&["boot"], &["--trace", text, "--trace-filter", "entry,exit,failure"]).expect_status(1);
    let written = fs::read_to_string(text).expect("the trace as text");
    assert!(written.lines().count() > 100);
    let shown = show(&[records]);
    shown.expect_status(0);
    assert_eq!(shown.console, written);

    show(&[records, "-o", perfetto]).expect_status(0);
    let whole: serde_json::Value = serde_json::from_str(&fs::read_to_string(perfetto).unwrap()).expect("JSON");
    assert!(whole["traceEvents"].as_array().is_some_and(|events| events.len() > 100));
    let exits = show(&[perfetto, "--filter", "exit,cpu=0"]);
    exits.expect_status(0);
    let wanted: Vec<&str> = written.lines().filter(|line| line.contains(" exit      ")).collect();
    assert!(!wanted.is_empty());
    assert_eq!(exits.console.lines().collect::<Vec<_>>(), wanted);

    let refused = show(&[text]);
    refused.expect_status(2);
    assert!(refused.errors.contains("line 1 is no record of a trace"), "{}", refused.errors);
}
