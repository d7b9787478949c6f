//! Follows openraft's metrics: who leads, who belongs to the cluster.

use crate::error::RaftError;
use crate::handle::{Engine, Figures};
use crate::home::Home;
use crate::pulse::Pulse;
use crate::status::Leadership;
use crate::types::{LogId, StoredMembership};
use crate::view::View;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, ServerState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warren_types::NodeId;

struct Watcher {
    id: NodeId,
    engine: Engine,
    view: Arc<View>,
    pulse: Arc<Pulse>,
    home: Arc<Home>,
    /// The membership that was looked at last.
    members: Option<LogId>,
    /// Whether they are still to be stored.
    unstored: bool,
    /// Whether this node was ever among the members.
    was_member: bool,
    /// The last term in which this node stood for election.
    stood: u64,
    /// The term in which a change of the members was taken up again.
    settled: u64,
    /// Whether the record of the directory does not say yet whose it is.
    unclaimed: bool,
    /// Gives the office away.
    aside: Option<JoinHandle<()>>,
}

/// Turns openraft's metrics into [`Leadership`].
pub(crate) async fn watch_leadership(
    id: NodeId,
    engine: Engine,
    view: Arc<View>,
    pulse: Arc<Pulse>,
    home: Arc<Home>,
    leadership: watch::Sender<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let mut metrics = engine.metrics();
    let mut watcher = Watcher {
        id,
        engine,
        view,
        pulse,
        was_member: home.record().member,
        unclaimed: home.is_unclaimed(),
        home,
        members: None,
        unstored: false,
        stood: 0,
        settled: 0,
        aside: None,
    };
    loop {
        let now = watcher.look(&metrics.borrow_and_update());
        leadership.send_if_modified(|before| {
            if before.leader != now.leader {
                watcher.pulse.leader_changed(now.leader.is_some());
            }
            let news = *before != now;
            *before = now;
            news
        });
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            changed = metrics.changed() => if changed.is_err() {
                // Nobody says why: the engine's task has panicked, or it was shut down, which is noted already.
                watcher.view.fail("the task of the consensus engine has ended");
                break;
            },
        }
    }
    leadership.send_modify(|now| {
        *now = Leadership {
            term: now.term,
            ..Leadership::default()
        }
    });
}

impl Watcher {
    fn look(&mut self, metrics: &Figures) -> Leadership {
        if let Err(error) = &metrics.running_state {
            self.view.fail(&error.to_string());
        }
        self.look_at_members(metrics);
        self.claim();
        let alive = metrics.running_state.is_ok();
        let is_leader = alive
            && metrics.current_leader == Some(self.id)
            && metrics.state == ServerState::Leader;
        if (is_leader || metrics.state == ServerState::Candidate)
            && self.stood < metrics.current_term
        {
            self.stood = metrics.current_term;
            self.pulse.elections.fetch_add(1, Ordering::Relaxed);
        }
        let applied_own_term = metrics
            .last_applied
            .is_some_and(|last| last.leader_id.term == metrics.current_term);
        // The first entry of a term follows everything that earlier leaders acknowledged.
        let ready =
            is_leader && applied_own_term && self.view.applied_term() == metrics.current_term;
        if ready && self.settled < metrics.current_term {
            self.settled = metrics.current_term;
            self.settle(&metrics.membership_config);
        }
        if ready {
            self.leave_without_a_vote(metrics);
        }
        Leadership {
            leader: metrics.current_leader.filter(|_| alive),
            term: metrics.current_term,
            is_leader,
            ready,
        }
    }

    /// Completes the record of an older release as soon as the state says which cluster this is; stops when it is another.
    fn claim(&mut self) {
        if !self.unclaimed {
            return;
        }
        let state = self.view.state();
        let Some(settings) = state.settings() else {
            return;
        };
        self.unclaimed = false;
        match self.home.complete(settings.id) {
            Ok(()) => {}
            Err(error @ RaftError::OtherOwner { .. }) => {
                tracing::error!("{error}");
                self.view.fail(&error.to_string());
                let engine = self.engine.clone();
                // Errors mean that it has ended already, which is what is wanted.
                crate::runtime::spawn(async move { drop(engine.shutdown().await) });
            }
            Err(error) => tracing::warn!(%error, "cannot store whose data these are"),
        }
    }

    fn look_at_members(&mut self, metrics: &Figures) {
        let known = &metrics.membership_config;
        if *known.log_id() == self.members {
            if self.unstored && !self.pulse.is_healing() {
                self.remember(known);
            }
            self.notice_removal(&metrics.committed_membership_config);
            return;
        }
        self.members = *known.log_id();
        let members = known.membership().nodes();
        self.pulse
            .set_members(members.map(|(id, member)| (*id, member.clone())).collect());
        self.was_member |= known.membership().get_node(&self.id).is_some();
        self.remember(known);
        self.notice_removal(&metrics.committed_membership_config);
    }

    /// Keeps the members outside of log and snapshots, for the day when those are damaged. While healing, what is read are
    /// the members of the past.
    fn remember(&mut self, known: &StoredMembership) {
        self.unstored = self.pulse.is_healing();
        if self.unstored || known.membership().nodes().next().is_none() {
            return;
        }
        let stored = self.home.change(|record| {
            record.member = self.was_member;
            record.membership = known.clone();
        });
        if let Err(error) = stored {
            tracing::warn!(%error, "cannot store who the managers are; should the log be damaged, it cannot heal by itself");
        }
    }

    /// Whoever was a member and is none in a committed membership that is newer was removed. (A node that joins reads
    /// old memberships first: there it is no member yet.)
    fn notice_removal(&self, committed: &StoredMembership) {
        let membership = committed.membership();
        if self.was_member
            && *committed.log_id() == self.members
            && membership.nodes().next().is_some()
            && membership.get_node(&self.id).is_none()
        {
            self.pulse.set_removed();
        }
    }

    /// Ends the office of a leader that has lost its vote, whether before it took office or in it: openraft lets one lead on
    /// that is still a learner.
    fn leave_without_a_vote(&mut self, metrics: &Figures) {
        let known = &metrics.membership_config;
        let mut voters = known.membership().voter_ids();
        // Until then it is the one that sees to it.
        let committed = *metrics.committed_membership_config.log_id() == *known.log_id();
        let leaving = self
            .aside
            .as_ref()
            .is_some_and(|aside| !aside.is_finished());
        if committed && !leaving && voters.all(|voter| voter != self.id) {
            let pulse = Arc::clone(&self.pulse);
            let aside = crate::aside::step_aside(self.engine.clone(), pulse, self.id);
            self.aside = Some(crate::runtime::spawn(aside));
        }
    }

    /// Ends a change of the members that an earlier leader left half done.
    fn settle(&self, known: &StoredMembership) {
        let sets = known.membership().get_joint_config();
        let Some(voters) = sets.last().filter(|_| sets.len() > 1).cloned() else {
            return;
        };
        tracing::info!("finishing a change of the managers that an earlier leader began");
        let engine = self.engine.clone();
        crate::runtime::spawn(async move {
            let change = ChangeMembers::ReplaceAllVoters(voters);
            if let Err(error) = engine.change_membership(change, false).await {
                tracing::warn!(%error, "cannot finish the change of the managers, the next leader will");
            }
        });
    }
}
