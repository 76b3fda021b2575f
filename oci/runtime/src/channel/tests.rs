use super::*;

#[test]
fn descriptors_are_passed_with_their_message() {
    let (here, there) = Channel::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    let state_dir = PathBuf::from("/var/lib/a\u{301}/home");
    here.send_with(
        &StartRequest {
            state_dir: state_dir.clone(),
        },
        &[file.as_fd(), file.as_fd()],
    )
    .unwrap();
    let (request, given): (StartRequest, _) = there.receive_with().unwrap().unwrap();
    let [given, _] = given.as_slice() else {
        panic!("{given:?}");
    };
    assert_eq!(request.state_dir, state_dir);
    let inode = |fd: &dyn Fn() -> rustix::io::Result<rustix::fs::Stat>| fd().unwrap().st_ino;
    assert_eq!(
        inode(&|| rustix::fs::fstat(&file)),
        inode(&|| rustix::fs::fstat(given))
    );
    here.send(&StartRequest { state_dir }).unwrap();
    let (_, none): (StartRequest, _) = there.receive_with().unwrap().unwrap();
    assert!(none.is_empty());
    drop(here);
    assert!(there.receive_with::<StartRequest>().unwrap().is_none());
}

#[test]
fn the_last_message_survives_a_reset() {
    let (here, there) = Channel::pair().unwrap();
    here.proceed().unwrap();
    there.send(&Report::TimedOut).unwrap();
    drop(there);
    let message = here.receive::<Report>().unwrap();
    assert!(matches!(message, Some(Report::TimedOut)));
    assert!(here.receive::<Report>().unwrap().is_none());
}

#[test]
fn messages_arrive_whole_and_closing_is_noticed() {
    let (here, there) = Channel::pair().unwrap();
    here.send(&Report::Failed(Failure::new("mounts", "no")))
        .unwrap();
    here.proceed().unwrap();
    let message = there.receive::<Report>().unwrap();
    assert!(matches!(message, Some(Report::Failed(why)) if why.step == "mounts"));
    there.wait_for_proceed().unwrap();
    drop(here);
    assert!(there.receive::<Report>().unwrap().is_none());
    assert!(there.wait_for_proceed().is_err());
}
