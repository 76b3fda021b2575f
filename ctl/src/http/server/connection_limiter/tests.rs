use super::*;

fn limiter(total: usize) -> ConnectionLimiter {
    ConnectionLimiter::new(Limits {
        total,
        per_peer: 2,
        workers: 1,
    })
}

async fn acquire(limiter: &ConnectionLimiter) -> ConnectionSlot {
    limiter.acquire(None, false).await.unwrap()
}

#[tokio::test]
async fn connections_are_bounded_per_peer() {
    let limiter = limiter(100);
    let of = |peer: &str| limiter.acquire(Some(peer.parse().unwrap()), false);
    let (first, second) = (of("10.0.0.1").await.unwrap(), of("10.0.0.1").await.unwrap());
    // An idle connection of the same peer makes room.
    let evicted = first.evicted();
    let third = of("10.0.0.1").await.unwrap();
    evicted.await;
    drop(first);
    let active = [
        second.activity().begin_request(),
        third.activity().begin_request(),
    ];
    assert!(matches!(of("::ffff:10.0.0.1").await, Err(TooMany)));
    of("10.0.0.2").await.unwrap();
    drop((active, second, third));
    of("10.0.0.1").await.unwrap();
    // One host may have all addresses of its /64.
    let v6 = [of("fd00::1").await.unwrap(), of("fd00::2").await.unwrap()];
    let active = v6.each_ref().map(|slot| slot.activity().begin_request());
    assert!(of("fd00::3").await.is_err());
    assert!(of("fd00:0:0:1::3").await.is_ok());
    drop(active);
}

#[tokio::test]
async fn workers_have_reserved_slots() {
    let limiter = limiter(1);
    let only = acquire(&limiter).await;
    let active = only.activity().begin_request();
    let worker = "10.0.0.11".parse().unwrap();
    let slot = limiter.acquire(Some(worker), true).await.unwrap();
    drop((slot, active));
}

#[tokio::test]
async fn the_longest_idle_connection_is_evicted() {
    let limiter = limiter(2);
    let (first, second) = (acquire(&limiter).await, acquire(&limiter).await);
    // The first has had a request meanwhile, so the second is idle for longer.
    drop(first.activity().begin_request());
    let (gone, kept) = (second.evicted(), first.evict.clone());
    let (_third, ()) = tokio::join!(acquire(&limiter), async move {
        gone.await;
        drop(second);
    });
    assert!(!kept.is_cancelled());
}

#[tokio::test]
async fn an_active_connection_is_not_evicted_until_its_response_is_sent() {
    let limiter = limiter(1);
    let only = acquire(&limiter).await;
    let body = only
        .activity()
        .begin_request()
        .until_sent(Body::from("answer"));
    let evicted = only.evicted();
    let evict = only.evict.clone();
    let entering = tokio::spawn({
        let limiter = limiter.clone();
        async move { drop(acquire(&limiter).await) }
    });
    tokio::task::yield_now().await;
    assert!(!evict.is_cancelled());
    drop(body);
    evicted.await;
    drop(only);
    entering.await.unwrap();
    assert!(
        limiter.idle.waiting().1.is_empty(),
        "no idle connection is left"
    );
}
