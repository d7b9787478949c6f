//! The conformance suite on the fake driver, and its script.

mod common;

use common::{Environment, Workload, fresh_id};
use std::time::Duration as StdDuration;
use warren_runtime::{
    Driver, ExecSpec, FakeBehaviour, FakeDriver, FakeExec, LogSource, RuntimeSpec,
};
use warren_types::{Duration, ExitInfo};

struct Fake(FakeDriver);

impl Environment for Fake {
    fn driver(&self) -> &dyn Driver {
        &self.0
    }

    fn spec(&self, workload: Workload) -> RuntimeSpec {
        let args = match workload {
            Workload::Exit(code) => vec!["exit".to_owned(), code.to_string()],
            Workload::Polite => vec!["polite".to_owned()],
            Workload::Stubborn => vec!["stubborn".to_owned()],
            Workload::Print(lines) => vec!["print".to_owned(), lines.to_string()],
            Workload::Missing => vec!["missing".to_owned()],
        };
        RuntimeSpec::new(fresh_id(), "/nowhere", args)
    }

    fn talking_command(&self) -> ExecSpec {
        ExecSpec::new(["talk"])
    }
}

fn behave(spec: &RuntimeSpec) -> FakeBehaviour {
    let number = || spec.args[1].parse::<i32>().unwrap();
    let usual = FakeBehaviour {
        output: vec![(LogSource::Stdout, "ready".to_owned())],
        ..FakeBehaviour::default()
    };
    match spec.args[0].as_str() {
        "exit" => FakeBehaviour {
            run_for: Some(Duration(1)),
            exit: ExitInfo {
                code: number(),
                signal: None,
                oom: false,
            },
            ..usual
        },
        "stubborn" => FakeBehaviour {
            stop_after: None,
            ..usual
        },
        "print" => {
            let mut output: Vec<_> = (1..=number())
                .map(|n| (LogSource::Stdout, format!("out {n}")))
                .collect();
            output.push((LogSource::Stderr, "err 1".to_owned()));
            FakeBehaviour { output, ..usual }
        }
        "missing" => FakeBehaviour {
            create_error: Some("no such program in the image".into()),
            ..usual
        },
        _ => usual,
    }
}

#[tokio::test]
async fn fake_driver_conforms() {
    let driver = FakeDriver::new(behave).with_exec(|_, _| FakeExec {
        code: 5,
        stdout: b"hello".to_vec(),
        stderr: b"oops".to_vec(),
        takes: Duration(10),
    });
    common::conformance(&Fake(driver)).await;
}

#[tokio::test]
async fn script_is_kept() {
    let driver = FakeDriver::new(|_| FakeBehaviour {
        start_delay: Duration(30),
        run_for: Some(Duration(50)),
        ..FakeBehaviour::default()
    });
    let id = fresh_id();
    driver
        .create(RuntimeSpec::new(id, "/nowhere", ["x"]))
        .await
        .unwrap();
    let begun = tokio::time::Instant::now();
    let started = driver.start(id).await.unwrap().started_at.unwrap();
    assert!(begun.elapsed() >= StdDuration::from_millis(30));
    let exit = driver.wait(id).await.unwrap();
    assert!(exit.at.since(started) >= Duration(49), "{exit:?}");
    let other = fresh_id();
    driver
        .create(RuntimeSpec::new(other, "/nowhere", ["x"]))
        .await
        .unwrap();
    driver.start(other).await.unwrap();
    let oom = ExitInfo {
        code: 137,
        signal: Some(9),
        oom: true,
    };
    assert_eq!(driver.crash(other, oom).await.unwrap().info, oom);
}
