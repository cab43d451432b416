//! Workers' `tracing` events in the coordinator's subscriber: whole, as they were, and never at a worker's expense.

use multiproc_tests::{Scene, watch};

const TRACED: &str = env!("CARGO_BIN_EXE_traced");

fn play(scene: &str) -> Vec<String> {
    let (text, status) = Scene::play(TRACED, scene).end();
    assert!(status.success(), "{scene}: {status}\n{text}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn events_arrive_as_what_they_were() {
    let _watched = watch(60);
    let from = |name: &str| format!("worker.name=\"{name}\" worker.pid=1u");
    let w = from("w");
    let expected = [
        format!("INFO mine traced.rs true message=hello 3 n=-1i m=1u x=1.5f ok=trueb text=\"a text\" {w}"),
        format!("WARN traced traced.rs true message=within {w} worker.spans=\"outer:inner\""),
        format!("WARN traced traced.rs true message=without {w}"),
        format!("WARN traced traced.rs true message=outer only {w} worker.spans=\"outer\""),
        format!("ERROR traced traced.rs true message=last chatty=chatty long=10000u {w}"),
        format!("INFO traced traced.rs true message=from below {}", from("lower")),
        format!("INFO traced traced.rs true message=from the middle {}", from("upper")),
        format!("INFO traced traced.rs true message=last words {}", from("dead")),
        "dropped 0".to_owned(),
    ];
    assert_eq!(play("events"), expected);
}

#[test]
fn what_a_task_says_belongs_to_the_span_of_its_caller() {
    let _watched = watch(60);
    let worker = "worker.name=\"p-0\" worker.pid=1u";
    let expected = [
        format!("Some(\"first\") message=one {worker}"),
        format!("None message=two {worker}"),
        format!("Some(\"second\") message=three {worker}"),
        format!("Some(\"second\") message=four {worker}"),
    ];
    assert_eq!(play("pool"), expected);
}

#[test]
fn workers_never_wait_and_losses_are_reported() {
    let _watched = watch(60);
    assert_eq!(play("full"), ["10000 true"]);
}

#[test]
fn a_workers_own_subscriber_stays() {
    let _watched = watch(60);
    let expected = ["worker: INFO traced traced.rs true message=mine", "coordinator: INFO traced traced.rs true message=after"];
    assert_eq!(play("own subscriber"), expected);
}

#[test]
fn kills_in_the_middle_harm_nobody() {
    let _watched = watch(120);
    let lines = play("killed");
    let (last, losses) = lines.split_last().unwrap();
    assert_eq!(last, "INFO traced traced.rs true message=still there worker.name=\"w\" worker.pid=1u");
    assert!(losses.iter().all(|line| line.starts_with("WARN multiproc no file false message=events of workers were dropped")));
}

#[test]
fn nobody_left_to_read_is_no_reason_to_wait() {
    let _watched = watch(60);
    let mut scene = Scene::play(TRACED, "orphan");
    assert_eq!(scene.line(), "detached");
    scene.kill();
    scene.say("go");
    assert_eq!(scene.line(), "done");
    assert_eq!(scene.end().0, "");
}

#[test]
fn the_exit_delivers_what_is_under_way() {
    let _watched = watch(60);
    let expected: Vec<_> =
        (0..100).map(|n| format!("INFO traced traced.rs true n={n}i worker.name=\"w\" worker.pid=1u")).collect();
    assert_eq!(play("exit"), expected);
}

#[test]
fn without_a_subscriber_nothing_is_sent() {
    let _watched = watch(60);
    assert_eq!(play("nobody asks"), ["0"]);
}
