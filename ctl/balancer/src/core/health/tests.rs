use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn each_failure_in_a_row_doubles_the_exclusion_up_to_the_limit() {
    let (health, limits) = (Health::default(), Limits::default());
    let mut now = SECOND;
    for pause_ms in [500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
        assert!(health.eject(now, &limits));
        let end = now + Duration::from_millis(pause_ms);
        assert!(health.is_ejected(end - Duration::from_millis(1)));
        assert!(!health.is_ejected(end));
        now = end;
    }
}

#[test]
fn concurrent_failures_count_once() {
    let (health, limits) = (Health::default(), Limits::default());
    assert!(health.eject(SECOND, &limits));
    assert!(!health.eject(SECOND, &limits));
    assert!(!health.is_ejected(SECOND + limits.eject_min));
}

#[test]
fn success_resets_the_count_and_uneject_does_not() {
    let (health, limits) = (Health::default(), Limits::default());
    health.eject(SECOND, &limits);
    health.uneject();
    assert!(!health.is_ejected(SECOND));
    health.eject(SECOND, &limits);
    assert!(
        health.is_ejected(SECOND + limits.eject_min),
        "the second exclusion is longer"
    );
    health.succeeded();
    health.eject(SECOND, &limits);
    assert!(
        !health.is_ejected(SECOND + limits.eject_min),
        "the shortest exclusion again"
    );
}
