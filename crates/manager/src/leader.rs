//! What lives only while this manager leads: one value owns it, and dropping that value stops it all
//! (law 5; a hand-kept list of things to stop is how other orchestrators left a loop running).

use tokio::task::JoinHandle;

/// Owner of every task that a leader starts.
#[derive(Debug, Default)]
pub(crate) struct LeaderScope {
    tasks: Vec<JoinHandle<()>>,
}

impl LeaderScope {
    /// Starts a task that ends with the scope.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }
}

impl Drop for LeaderScope {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    /// R12: nothing that a leader started outlives its scope.
    #[tokio::test]
    async fn dropping_the_scope_stops_its_tasks() {
        let (alive, ended) = oneshot::channel::<()>();
        let mut scope = LeaderScope::default();
        scope.spawn(async move {
            let _held = alive;
            std::future::pending::<()>().await;
        });
        drop(scope);
        assert!(
            ended.await.is_err(),
            "the task went and let go of what it held"
        );
    }
}
