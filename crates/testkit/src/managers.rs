//! A cluster of several managers, each a real process on a host of its own, and what can be done to them.

use crate::lab::{Cut, Lab, cut, heal};
use crate::{Node, eventually_within};
use nix::sys::signal::Signal;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use warren_client::{Client, ClientError, Target, TlsIdentity, v1};

/// Port of every manager's API.
pub const API_PORT: u16 = 8080;
/// How long a daemon may take until its socket answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a change of the quorum may take until all of it shows.
const QUORUM_LIMIT: Duration = Duration::from_secs(60);
/// Time limit of a question of the harness itself.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// Time limit of a change that the harness makes itself.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// Most managers that one lab holds over its life, replaced ones included.
const MEMBERS_MAX: usize = 32;

/// What the harness has done to a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Paused,
    Down,
    /// No longer part of the cluster, or not yet.
    Out,
}

#[derive(Debug)]
struct Member {
    node: Node,
    life: Life,
}

/// A manager as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its number in the lab.
    pub member: usize,
    /// `host:port` of its API.
    pub address: String,
}

/// How often each manager's process has been started. A client that reads from one manager uses it to
/// know whether two answers came from the same life of that manager.
#[derive(Debug, Clone)]
pub struct Lives(Arc<[AtomicU32]>);

impl Lives {
    fn new() -> Self {
        Self((0..MEMBERS_MAX).map(|_| AtomicU32::new(0)).collect())
    }

    /// Number of the life.
    #[must_use]
    pub fn of(&self, member: usize) -> u32 {
        self.0[member].load(Ordering::SeqCst)
    }

    fn next(&self, member: usize) {
        self.0[member].fetch_add(1, Ordering::SeqCst);
    }
}

/// The managers. Numbers count from 0 in the order in which they were made, and are never reused.
#[derive(Debug)]
pub struct Managers {
    members: Vec<Member>,
    lives: Lives,
    identity: Option<TlsIdentity>,
    runtime: Runtime,
    manager_only: bool,
    lab: Lab,
}

impl Managers {
    /// `count` managers that run no containers, all of them voters.
    ///
    /// # Panics
    /// When the cluster does not come together; the message holds the ends of the logs.
    #[must_use]
    pub fn start(count: usize) -> Self {
        Self::start_as(count, true)
    }

    /// As [`Self::start`], but they run containers as well.
    #[must_use]
    pub fn start_hybrid(count: usize) -> Self {
        Self::start_as(count, false)
    }

    fn start_as(count: usize, manager_only: bool) -> Self {
        let mut all = Self::empty(manager_only);
        let first = all.found();
        assert_eq!(first, 0, "the founder is the first");
        for _ in 1..count {
            let _ = all.add();
        }
        all
    }

    /// A lab without any manager.
    ///
    /// # Panics
    /// When the lab cannot be made.
    #[must_use]
    pub fn empty(manager_only: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            members: Vec::new(),
            lives: Lives::new(),
            identity: None,
            runtime: runtime.unwrap_or_else(|e| panic!("runtime: {e}")),
            manager_only,
            lab: Lab::new(),
        }
    }

    /// A host with directories on the lab's network, no daemon; counted as a member that is out.
    ///
    /// # Panics
    /// When the host cannot be made.
    pub fn machine(&mut self) -> usize {
        assert!(self.members.len() < MEMBERS_MAX, "the lab is full");
        let node = Node::on(self.lab.host());
        self.members.push(Member {
            node,
            life: Life::Out,
        });
        self.members.len() - 1
    }

    /// Makes a cluster with one manager.
    ///
    /// # Panics
    /// When it does not start.
    pub fn found(&mut self) -> usize {
        self.found_with(&[])
    }

    /// As [`Self::found`], with more flags.
    ///
    /// # Panics
    /// When it does not start.
    pub fn found_with(&mut self, flags: &[&str]) -> usize {
        let number = self.machine();
        let (name, api) = (self.name(number), self.address(number));
        let mut words = vec!["cluster", "init", "--node-id", &name, "--api-addr", &api];
        words.extend(self.manager_only.then_some("--manager-only"));
        words.extend(flags);
        self.run(number, &words);
        let directory = self.members[number].node.data_dir().join("admin");
        let identity = TlsIdentity::from_dir(&directory);
        self.identity = Some(identity.unwrap_or_else(|e| panic!("admin's certificate: {e}")));
        self.wait_quorum();
        number
    }

    /// Lets another manager join and waits until it is a voter.
    ///
    /// # Panics
    /// When it does not become one.
    pub fn add(&mut self) -> usize {
        let number = self.machine();
        self.join(number);
        self.wait_quorum();
        number
    }

    /// Lets a machine of the lab join as a manager; does not wait for it to be a voter.
    ///
    /// # Panics
    /// When its daemon does not answer.
    pub fn join(&mut self, number: usize) {
        let token = self.token("manager", 1);
        let words = self.join_words(number, &token);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.run(number, &words);
    }

    /// The command that lets a machine of the lab join as a manager with this token.
    #[must_use]
    pub fn join_words(&self, number: usize, token: &str) -> Vec<String> {
        let managers: Vec<String> = self.addresses().into_iter().map(|a| a.address).collect();
        let mut words = vec![
            "manager".to_owned(),
            "join".to_owned(),
            "--token".to_owned(),
            token.to_owned(),
            "--manager".to_owned(),
            managers.join(","),
            "--node-id".to_owned(),
            self.name(number),
            "--api-addr".to_owned(),
            self.address(number),
        ];
        words.extend(self.manager_only.then(|| "--manager-only".to_owned()));
        words
    }

    /// A join token for this role; `max_uses` 0 means any number.
    ///
    /// # Panics
    /// When there is no quorum to make one.
    #[must_use]
    pub fn token(&self, role: &str, max_uses: u32) -> String {
        let request = v1::GenerateJoinTokenRequest {
            role: role.to_owned(),
            max_uses,
            ..Default::default()
        };
        let made = self.change("join token", async |client| {
            client.generate_join_token(request.clone()).await
        });
        made.token
    }

    fn run(&mut self, number: usize, words: &[&str]) {
        self.spawn(number, words);
        self.wait_up(number);
    }

    /// Starts a daemon with this command and counts it as running, without waiting for anything.
    pub fn spawn(&mut self, number: usize, words: &[&str]) {
        let member = &mut self.members[number];
        member.node.spawn(words, &[]);
        member.life = Life::Running;
    }

    /// Waits until the daemon's socket answers.
    ///
    /// # Panics
    /// When it ends or does not answer.
    pub fn wait_up(&mut self, number: usize) {
        eventually_within(START_LIMIT, "the daemon answers", || {
            self.members[number].node.must_run();
            self.status(number)
                .map(drop)
                .map_err(|e| format!("{e}\n{}", self.node(number).log_tail()))
        });
    }

    /// The machines' network.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The node.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.members[number].node
    }

    /// The node, to do something to it that the harness need not know.
    #[must_use]
    pub fn node_mut(&mut self, number: usize) -> &mut Node {
        &mut self.members[number].node
    }

    /// The lives of the processes.
    #[must_use]
    pub fn lives(&self) -> Lives {
        self.lives.clone()
    }

    /// Name of a node.
    #[must_use]
    pub fn name(&self, number: usize) -> String {
        format!("m{}", number + 1)
    }

    /// Network address of a node.
    #[must_use]
    pub fn ip(&self, number: usize) -> Ipv4Addr {
        self.node(number).host().address()
    }

    /// `host:port` of a node's API.
    #[must_use]
    pub fn address(&self, number: usize) -> String {
        format!("{}:{API_PORT}", self.ip(number))
    }

    /// All members of the cluster, whether they run or not.
    #[must_use]
    pub fn members(&self) -> Vec<usize> {
        let all = self.members.iter().enumerate();
        all.filter(|(_, m)| m.life != Life::Out)
            .map(|(number, _)| number)
            .collect()
    }

    /// Addresses of all members.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        let all = self.members().into_iter();
        all.map(|member| Address {
            member,
            address: self.address(member),
        })
        .collect()
    }

    /// The first administrator's identity.
    ///
    /// # Panics
    /// Before the cluster is made.
    #[must_use]
    pub fn identity(&self) -> TlsIdentity {
        let identity = self.identity.clone();
        identity.unwrap_or_else(|| panic!("no cluster was made yet"))
    }

    /// The administrator's directory, as `WARREN_CONTEXT_DIR` wants it.
    #[must_use]
    pub fn admin_dir(&self) -> PathBuf {
        self.node(0).data_dir().join("admin")
    }

    /// Takes the administrator's identity of this node from now on (after a restore).
    ///
    /// # Panics
    /// When it has none.
    pub fn trust(&mut self, number: usize) {
        let directory = self.node(number).data_dir().join("admin");
        let identity = TlsIdentity::from_dir(&directory);
        self.identity = Some(identity.unwrap_or_else(|e| panic!("admin's certificate: {e}")));
    }

    // ------------------------------------------------------------ questions

    /// Asks one daemon over its socket.
    ///
    /// # Errors
    /// In words, also when no answer comes within the limit.
    pub fn ask<T>(
        &self,
        number: usize,
        limit: Duration,
        call: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
    ) -> Result<T, String> {
        let target = Target::Unix(self.node(number).socket());
        self.block(limit, async {
            let client = Client::connect(target).await?;
            call(client).await
        })
        .map_err(|e| format!("{}: {e}", self.name(number)))
    }

    fn block<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, String> {
        self.runtime.block_on(async {
            match tokio::time::timeout(limit, work).await {
                Ok(answer) => answer.map_err(|e| e.to_string()),
                Err(_) => Err(format!("no answer within {limit:?}")),
            }
        })
    }

    /// What a daemon says of itself.
    ///
    /// # Errors
    /// In words.
    pub fn status(&self, number: usize) -> Result<v1::GetStatusResponse, String> {
        self.ask(number, ASK_LIMIT, async |client| client.status().await)
    }

    /// What a manager says of the cluster.
    ///
    /// # Errors
    /// In words.
    pub fn info(&self, number: usize) -> Result<v1::GetClusterInfoResponse, String> {
        self.ask(number, ASK_LIMIT, async |client| {
            client.cluster_info().await
        })
    }

    /// The leader now, when one manager that runs says that it is and has a quorum.
    ///
    /// # Errors
    /// What the managers say.
    pub fn try_leader(&self) -> Result<usize, String> {
        let mut said = Vec::new();
        let mut found: Option<(u64, usize)> = None;
        for number in self.running() {
            match self.status(number) {
                Ok(status) if status.leader => match self.info(number) {
                    Ok(info) if info.quorum => found = found.max(Some((info.term, number))),
                    other => said.push(format!("{other:?}")),
                },
                Ok(_) => said.push(format!("{} follows", self.name(number))),
                Err(e) => said.push(e),
            }
        }
        found
            .map(|(_, number)| number)
            .ok_or_else(|| said.join("; "))
    }

    /// Waits for a leader.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn leader(&self) -> usize {
        eventually_within(QUORUM_LIMIT, "somebody leads", || {
            self.try_leader()
                .map_err(|e| format!("{e}\n{}", self.logs()))
        })
    }

    /// The leader, also when it is this one that the harness no longer counts as a member.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn leader_or(&self, number: usize) -> usize {
        eventually_within(QUORUM_LIMIT, "somebody leads", || {
            let own = self.status(number).is_ok_and(|status| status.leader);
            if own { Ok(number) } else { self.try_leader() }
        })
    }

    /// A running member that does not lead.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        let found = self.running().into_iter().find(|number| *number != leader);
        found.unwrap_or_else(|| panic!("nobody follows"))
    }

    /// Waits until the leader counts each member as a voter that answers and lacks nothing.
    ///
    /// # Panics
    /// When that does not come.
    pub fn wait_quorum(&self) {
        let wanted = self.members().len();
        eventually_within(QUORUM_LIMIT, "every member is a healthy voter", || {
            self.check_quorum(wanted)
                .map_err(|e| format!("{wanted} wanted: {e}\n{}", self.logs()))
        });
    }

    fn check_quorum(&self, wanted: usize) -> Result<(), String> {
        let leader = self.try_leader()?;
        let info = self.info(leader)?;
        let whole = info.servers.len() == wanted
            && info
                .servers
                .iter()
                .all(|s| s.suffrage == "Voter" && (s.reachable || s.leader));
        if !whole {
            return Err(format!("{:?}", info.servers));
        }
        // A member may still be applying what the leader counts as delivered.
        for number in self.running() {
            let status = self.status(number)?;
            if !status.quorum || status.revision < info.revision {
                return Err(format!(
                    "{} is at revision {} of {} (quorum: {})",
                    self.name(number),
                    status.revision,
                    info.revision,
                    status.quorum
                ));
            }
        }
        Ok(())
    }

    /// Members whose process runs.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let all = self.members.iter().enumerate();
        all.filter(|(_, m)| m.life == Life::Running)
            .map(|(number, _)| number)
            .collect()
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = self.members.iter().enumerate().map(|(number, m)| {
            format!(
                "--- {} ({:?})\n{}",
                self.name(number),
                m.life,
                m.node.log_tail()
            )
        });
        logs.collect::<Vec<_>>().join("\n")
    }

    // ------------------------------------------------------------ changes

    /// A change through the socket of any running member, repeated until one takes it. It must be harmless to repeat.
    ///
    /// # Panics
    /// When none takes it.
    pub fn change<T>(
        &self,
        what: &str,
        call: impl AsyncFn(&Client) -> Result<T, ClientError>,
    ) -> T {
        eventually_within(QUORUM_LIMIT, what, || {
            let number = self.try_leader()?;
            self.ask(number, CHANGE_LIMIT, async |client| call(&client).await)
        })
    }

    /// Kills a manager as a power cut of that one process would.
    pub fn kill(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.node.kill();
        member.life = Life::Down;
        self.lives.next(number);
    }

    /// Stops a manager in good order.
    pub fn stop(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.node.stop();
        member.life = Life::Down;
        self.lives.next(number);
    }

    /// Starts a manager that is down, and waits until its socket answers.
    pub fn restart(&mut self, number: usize) {
        self.run(number, &["node", "run"]);
    }

    /// Freezes a manager's process.
    pub fn pause(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.node.signal(Signal::SIGSTOP);
        member.life = Life::Paused;
    }

    /// Lets a frozen process go on.
    pub fn resume(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.node.signal(Signal::SIGCONT);
        member.life = Life::Running;
    }

    /// Cuts a manager off from all other managers; clients still reach it.
    pub fn cut_from_peers(&self, number: usize, which: Cut) {
        let peers: Vec<Ipv4Addr> = self
            .members()
            .into_iter()
            .filter(|other| *other != number)
            .map(|other| self.ip(other))
            .collect();
        cut(self.node(number).host(), &peers, which);
    }

    /// Cuts a manager off from these others.
    pub fn cut_from(&self, number: usize, others: &[usize], which: Cut) {
        let peers: Vec<Ipv4Addr> = others.iter().map(|other| self.ip(*other)).collect();
        cut(self.node(number).host(), &peers, which);
    }

    /// Ends a cut.
    pub fn heal(&self, number: usize) {
        heal(self.node(number).host());
    }

    /// Takes a member out of the cluster for good: its process is killed, then its node is removed.
    ///
    /// # Panics
    /// When the others do not take the removal.
    pub fn replace_away(&mut self, number: usize) {
        self.kill(number);
        self.out(number);
        let name = self.name(number);
        self.change("node remove", async |client| {
            match client.remove_node(&name, true).await {
                // Done by an earlier try.
                Err(e) if e.kind == warren_client::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        });
        self.wait_quorum();
    }

    /// Makes a manager a worker, or back; does not wait for it.
    pub fn set_role(&self, number: usize, role: &str) {
        let request = v1::UpdateNodeRequest {
            id: self.name(number),
            role: Some(role.to_owned()),
            ..Default::default()
        };
        let _ = self.change("node update", async |client| {
            client.update_node(request.clone()).await
        });
    }

    /// Sets after how many entries a snapshot is due.
    ///
    /// # Panics
    /// When no leader takes it.
    pub fn set_snapshot_entries(&self, entries: u64) {
        let request = v1::UpdateClusterSettingsRequest {
            snapshot_entries: Some(entries),
            ..Default::default()
        };
        let _ = self.change("cluster settings", async |client| {
            client.update_cluster_settings(request.clone()).await
        });
    }

    /// The harness no longer counts this one as a member.
    pub fn out(&mut self, number: usize) {
        self.members[number].life = Life::Out;
    }

    /// The harness counts this one as a running member (again).
    pub fn back(&mut self, number: usize) {
        self.members[number].life = Life::Running;
    }

    /// Ends all daemons and removes what they made.
    pub fn reset(&mut self) {
        for member in &mut self.members {
            if member.life == Life::Paused {
                member.node.signal(Signal::SIGCONT);
            }
            member.node.reset();
            member.life = Life::Out;
        }
    }
}

impl Drop for Managers {
    fn drop(&mut self) {
        // A frozen process dies by SIGKILL all the same; nothing else to undo.
        if std::thread::panicking() {
            eprintln!("lab of {} managers ends by a panic", self.members.len());
        }
    }
}

/// How long something took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let answer = work();
    (answer, begin.elapsed())
}
