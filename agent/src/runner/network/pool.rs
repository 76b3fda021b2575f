//! Network namespaces that are ready before anybody needs one: making one is the dearest step of a start. They are held by
//! descriptors alone, and so vanish with the agent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::namespace::Namespace;

/// Some of them.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    ready: Arc<Mutex<Vec<Namespace>>>,
    /// Held by the one task that makes more.
    filling: Arc<tokio::sync::Mutex<()>>,
    size: usize,
}

impl Pool {
    /// Empty; [`Self::fill`] fills it.
    pub(super) fn new(size: usize) -> Self {
        Self {
            ready: Arc::default(),
            filling: Arc::default(),
            size,
        }
    }

    /// One that nobody else has ever used, if one is ready.
    pub(super) fn take(&self) -> Option<Namespace> {
        self.ready().pop()
    }

    /// Makes what is missing, without being waited for. Once it is full, or one cannot be made, it ends.
    pub(super) fn fill(&self) {
        let pool = self.clone();
        tokio::spawn(async move {
            let Ok(_alone) = pool.filling.try_lock() else {
                return;
            };
            while pool.ready().len() < pool.size {
                match Namespace::new().await {
                    Ok(namespace) => pool.ready().push(namespace),
                    // Who needs one tries it again, and tells.
                    Err(_) => return,
                }
            }
        });
    }

    /// Gives all back.
    pub(super) async fn clear(&self) {
        let _alone = self.filling.lock().await;
        self.ready().clear();
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Namespace>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::fs::MetadataExt};

    use tucano_testkit::{ROOT, needs};

    use super::*;

    fn inode(namespace: &Namespace) -> u64 {
        let file = std::fs::File::from(namespace.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().ino()
    }

    async fn filled(pool: &Pool) {
        pool.fill();
        while pool.ready().len() < pool.size {
            tokio::task::yield_now().await;
        }
        // The task holds it until its end.
        drop(pool.filling.lock().await);
    }

    #[tokio::test]
    async fn each_is_used_once_and_no_more_than_wanted_are_ready() {
        if !needs(&[ROOT]) {
            return;
        }
        let pool = Pool::new(2);
        filled(&pool).await;
        pool.fill();
        let mut taken = Vec::from_iter(pool.take());
        filled(&pool).await;
        assert_eq!(pool.ready().len(), 2);
        taken.extend(pool.take());
        taken.extend(pool.take());
        let mut inodes: Vec<_> = taken.iter().map(inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), 3);
        filled(&pool).await;
        pool.clear().await;
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn without_any_kept_none_is_ready() {
        if !needs(&[ROOT]) {
            return;
        }
        let pool = Pool::new(0);
        filled(&pool).await;
        assert!(pool.take().is_none());
    }
}
