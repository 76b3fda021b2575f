//! A timer whose deadline moves with every request, and costs nothing when it does.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is polled with the deadline that holds now. The runtime's timer below it is moved to earlier deadlines only;
/// later ones are looked at when it ends.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Completes once `deadline` has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test]
    async fn deadlines_move_in_both_directions() {
        let mut timer = Timer::default();
        let now = Instant::now();
        let is_over = |timer: &mut Timer, deadline| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            timer.poll(&mut cx, deadline).is_ready()
        };
        let hour = now + Duration::from_secs(3600);
        assert!(!is_over(&mut timer, hour));
        poll_fn(|cx| timer.poll(cx, now)).await;
        assert!(Instant::now() >= now);
        assert!(
            !is_over(&mut timer, hour),
            "a deadline after one that has passed"
        );
        let soon = Instant::now() + Duration::from_millis(5);
        poll_fn(|cx| timer.poll(cx, soon)).await;
        assert!(Instant::now() >= soon);
    }
}
