//! The balancer outlives a killed controller, is adopted by the next, and stops with a controller that stops cleanly.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tucano_testkit::{Need, needs, programs};

use crate::ctl::{Ctl, config};

pub(crate) fn supervising(listen: &str) -> String {
    let program = programs().join("tucano_balancerd");
    let with = format!("listen = \"{listen}\"\nprogram = \"{}\"", program.display());
    config(1, "", "").replace("spawn = false", &with)
}

pub(crate) fn is_there() -> bool {
    let path = programs().join("tucano_balancerd").display().to_string();
    needs(&[Need::Exists(path.leak())])
}

/// Process id of the balancer that holds the lock.
async fn balancer(ctl: &mut Ctl) -> i32 {
    ctl.eventually("the balancer", async |ctl| {
        let file = std::fs::File::open(ctl.path("data/balancer.lock")).ok()?;
        file.try_lock_shared().err()?;
        let pid: i32 = std::fs::read_to_string(ctl.path("data/balancer.lock"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        runs(pid).then_some(pid)
    })
    .await
}

fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balancer_is_started_adopted_replaced_and_stopped() {
    if !is_there() {
        return;
    }
    let mut ctl = Ctl::start(&supervising("127.0.0.1:0")).await;
    let first = balancer(&mut ctl).await;
    ctl.kill_9().await;
    assert!(runs(first));
    ctl.start_again().await;
    ctl.eventually("its adoption", async |ctl| {
        ctl.log()
            .contains("adopted the running balancer")
            .then_some(())
    })
    .await;
    assert_eq!(balancer(&mut ctl).await, first);

    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second = ctl
        .eventually("another one", async |ctl| {
            Some(balancer(ctl).await).filter(|pid| *pid != first)
        })
        .await;

    ctl.kill_9().await;
    ctl.write_config(&supervising("127.0.0.2:0"));
    ctl.start_again().await;
    let third = ctl
        .eventually("one with the new address", async |ctl| {
            Some(balancer(ctl).await).filter(|pid| *pid != second)
        })
        .await;
    ctl.eventually("the end of the one before", async |_| {
        (!runs(second)).then_some(())
    })
    .await;

    assert_eq!(ctl.end(Signal::SIGTERM).await.code(), Some(0));
    assert!(!runs(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_named_and_the_controller_works() {
    let missing = supervising("127.0.0.1:0").replace("tucano_balancerd", "no_such_balancerd");
    let mut ctl = Ctl::start(&missing).await;
    ctl.eventually("the error", async |ctl| {
        ctl.log().contains("no_such_balancerd").then_some(())
    })
    .await;
    ctl.get("/v1/state").await.expect(200);
}
