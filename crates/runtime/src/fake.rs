//! Driver `fake`: containers that only exist in memory and do what a script says. For tests of what stands
//! above the runtime, and for simulations of many nodes in one process. Time is tokio's, so it can be paused.

use crate::driver::{
    ContainerInfo, ContainerStats, Driver, EVENT_CAPACITY, ExecControl, ExecHandle, ExecSpec,
    ExitRecord, LogLine, LogQuery, LogSource, LogStream, RuntimeEvent, RuntimeState,
};
use crate::entry::{Change, Entry};
use crate::error::{Result, RuntimeError};
use crate::record::Meta;
use crate::spec::RuntimeSpec;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep};
use warren_types::{ContainerId, Duration, ExitInfo, Timestamp};

/// First process id that is given out.
const FIRST_PID: u32 = 1000;
/// Orders that wait for one container.
const ORDER_QUEUE: usize = 16;
/// The fake clock's start, in milliseconds since 1970.
const EPOCH: Timestamp = Timestamp(1_700_000_000_000);

/// What a fake container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeBehaviour {
    /// `create` fails with this reason.
    pub create_error: Option<String>,
    /// How long `create` takes.
    pub create_delay: Duration,
    /// `start` fails with this reason.
    pub start_error: Option<String>,
    /// How long `start` takes.
    pub start_delay: Duration,
    /// It ends by itself after this time; `None` runs until stopped.
    pub run_for: Option<Duration>,
    /// How it ends by itself.
    pub exit: ExitInfo,
    /// How long it takes to end, with status 0, after its stop signal; `None` ignores the signal.
    pub stop_after: Option<Duration>,
    /// What it writes when it starts.
    pub output: Vec<(LogSource, String)>,
}

impl Default for FakeBehaviour {
    /// Starts at once, runs until stopped, stops at once, writes nothing.
    fn default() -> Self {
        Self {
            create_error: None,
            create_delay: Duration(0),
            start_error: None,
            start_delay: Duration(0),
            run_for: None,
            exit: ExitInfo::default(),
            stop_after: Some(Duration(0)),
            output: Vec::new(),
        }
    }
}

/// What a fake command does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FakeExec {
    /// Its exit status.
    pub code: i32,
    /// Its output.
    pub stdout: Vec<u8>,
    /// Its error output.
    pub stderr: Vec<u8>,
    /// How long it takes.
    pub takes: Duration,
}

type Schedule = dyn Fn(&RuntimeSpec) -> FakeBehaviour + Send + Sync;
type ExecScript = dyn Fn(&RuntimeSpec, &ExecSpec) -> FakeExec + Send + Sync;

/// The driver.
pub struct FakeDriver {
    schedule: Box<Schedule>,
    exec: Box<ExecScript>,
    containers: Mutex<BTreeMap<ContainerId, Arc<Fake>>>,
    events: broadcast::Sender<RuntimeEvent>,
    begun: Instant,
    next_pid: std::sync::atomic::AtomicU32,
}

impl std::fmt::Debug for FakeDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeDriver")
            .field("containers", &self.lock().len())
            .finish()
    }
}

struct Fake {
    entry: Arc<Entry>,
    spec: RuntimeSpec,
    behaviour: FakeBehaviour,
    lines: Arc<watch::Sender<Vec<LogLine>>>,
    orders: mpsc::Sender<Order>,
    inbox: Mutex<Option<mpsc::Receiver<Order>>>,
}

/// What a running fake container hears.
enum Order {
    Stop,
    End(ExitInfo),
}

impl FakeDriver {
    /// A driver whose containers do what `schedule` says; commands succeed without output.
    /// Must be called inside a tokio runtime.
    pub fn new(schedule: impl Fn(&RuntimeSpec) -> FakeBehaviour + Send + Sync + 'static) -> Self {
        Self {
            schedule: Box::new(schedule),
            exec: Box::new(|_, _| FakeExec::default()),
            containers: Mutex::new(BTreeMap::new()),
            events: broadcast::channel(EVENT_CAPACITY).0,
            begun: Instant::now(),
            next_pid: FIRST_PID.into(),
        }
    }

    /// Sets what commands do.
    #[must_use]
    pub fn with_exec(
        mut self,
        exec: impl Fn(&RuntimeSpec, &ExecSpec) -> FakeExec + Send + Sync + 'static,
    ) -> Self {
        self.exec = Box::new(exec);
        self
    }

    /// Ends a container from outside, as a crash would.
    pub async fn crash(&self, id: ContainerId, exit: ExitInfo) -> Result<ExitRecord> {
        let fake = self.get(id)?;
        fake.end(exit, self.now(), &self.events).await;
        fake.entry.wait().await
    }

    /// Makes a container write a line.
    pub fn print(&self, id: ContainerId, source: LogSource, line: &str) -> Result<()> {
        self.get(id)?.print(source, line, self.now());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Fake>>> {
        // A panic while the map was held cannot leave it half changed.
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: ContainerId) -> Result<Arc<Fake>> {
        self.lock()
            .get(&id)
            .cloned()
            .ok_or(RuntimeError::NotFound { id })
    }

    fn now(&self) -> Timestamp {
        time_since(self.begun)
    }
}

fn time_since(begun: Instant) -> Timestamp {
    EPOCH.plus(Duration(
        u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    ))
}

impl Fake {
    fn print(&self, source: LogSource, line: &str, time: Timestamp) {
        let line = LogLine {
            time,
            source,
            bytes: line.as_bytes().to_vec(),
            partial: false,
        };
        self.lines.send_modify(|lines| lines.push(line));
    }

    async fn end(&self, info: ExitInfo, at: Timestamp, events: &broadcast::Sender<RuntimeEvent>) {
        if self.entry.info().state == RuntimeState::Running {
            // A full or closed inbox means that it is ending already.
            let _ = self.orders.send(Order::End(info)).await;
        } else {
            self.entry.advance(
                Change::Exited(ExitRecord {
                    info,
                    at,
                    lost: false,
                }),
                events,
            );
        }
    }

    /// The life of a started container.
    async fn live(
        self: Arc<Self>,
        mut inbox: mpsc::Receiver<Order>,
        begun: Instant,
        events: broadcast::Sender<RuntimeEvent>,
    ) {
        let run = async {
            match self.behaviour.run_for {
                Some(time) => sleep(time.to_std()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(run);
        let mut stopping: Option<Instant> = None;
        let info = loop {
            let stopped = async {
                match stopping {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut run => break self.behaviour.exit,
                () = stopped => break ExitInfo::default(),
                order = inbox.recv() => match (order, self.behaviour.stop_after) {
                    (Some(Order::End(info)), _) => break info,
                    (Some(Order::Stop), Some(after)) => stopping = stopping.or(Some(Instant::now() + after.to_std())),
                    (Some(Order::Stop), None) => {}
                    (None, _) => break killed(libc::SIGKILL),
                },
            }
        };
        let exit = ExitRecord {
            info,
            at: time_since(begun),
            lost: false,
        };
        self.entry.advance(Change::Exited(exit), &events);
    }
}

const fn killed(signal: i32) -> ExitInfo {
    ExitInfo {
        code: 128 + signal,
        signal: Some(signal),
        oom: false,
    }
}

#[async_trait]
impl Driver for FakeDriver {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn create(&self, spec: RuntimeSpec) -> Result<ContainerInfo> {
        spec.validate()?;
        let id = spec.id;
        let before = self.lock().get(&id).cloned();
        if let Some(old) = before
            .as_ref()
            .filter(|o| o.entry.exit().is_none() || spec.attempt <= o.spec.attempt)
        {
            return Err(RuntimeError::Exists {
                id,
                attempt: old.spec.attempt,
            });
        }
        let behaviour = (self.schedule)(&spec);
        sleep(behaviour.create_delay.to_std()).await;
        if let Some(reason) = behaviour.create_error {
            return Err(RuntimeError::Create { id, reason });
        }
        let pid = self
            .next_pid
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let meta = Meta {
            id,
            attempt: spec.attempt,
            name: spec.name.clone(),
            stop_signal: spec.stop_signal,
        };
        let (orders, inbox) = mpsc::channel(ORDER_QUEUE);
        let fake = Fake {
            entry: Entry::new(meta, RuntimeState::Created, Some(pid), None),
            spec,
            behaviour,
            lines: before.map_or_else(
                || Arc::new(watch::Sender::new(Vec::new())),
                |old| old.lines.clone(),
            ),
            orders,
            inbox: Mutex::new(Some(inbox)),
        };
        let info = fake.entry.info();
        self.lock().insert(id, Arc::new(fake));
        Ok(info)
    }

    async fn start(&self, id: ContainerId) -> Result<ContainerInfo> {
        let fake = self.get(id)?;
        let _turn = fake.entry.turn.lock().await;
        let state = fake.entry.info().state;
        let refused = RuntimeError::WrongState {
            id,
            state: state.name(),
            action: "start",
        };
        if state != RuntimeState::Created {
            return Err(refused);
        }
        sleep(fake.behaviour.start_delay.to_std()).await;
        if let Some(reason) = &fake.behaviour.start_error {
            let info = ExitInfo {
                code: 127,
                signal: None,
                oom: false,
            };
            fake.entry.advance(
                Change::Exited(ExitRecord {
                    info,
                    at: self.now(),
                    lost: false,
                }),
                &self.events,
            );
            return Err(RuntimeError::Start {
                id,
                reason: reason.clone(),
            });
        }
        let inbox = fake
            .inbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or(refused)?;
        fake.entry
            .advance(Change::Started(self.now()), &self.events);
        for (source, line) in &fake.behaviour.output {
            fake.print(*source, line, self.now());
        }
        let info = fake.entry.info();
        tokio::spawn(fake.clone().live(inbox, self.begun, self.events.clone()));
        Ok(info)
    }

    async fn signal(&self, id: ContainerId, signal: i32) -> Result<()> {
        let fake = self.get(id)?;
        let state = fake.entry.info().state;
        if fake.entry.exit().is_some() {
            return Err(RuntimeError::WrongState {
                id,
                state: state.name(),
                action: "signal",
            });
        }
        if signal == libc::SIGKILL {
            fake.end(killed(signal), self.now(), &self.events).await;
        } else if signal == fake.spec.stop_signal {
            // A full or closed inbox means that it is ending already.
            let _ = fake.orders.send(Order::Stop).await;
        }
        Ok(())
    }

    async fn stop(&self, id: ContainerId, grace: Duration) -> Result<ExitRecord> {
        let fake = self.get(id)?;
        if let Some(exit) = fake.entry.exit() {
            return Ok(exit);
        }
        if fake.entry.info().state == RuntimeState::Running {
            let _ = fake.orders.send(Order::Stop).await;
            if let Ok(exit) = tokio::time::timeout(grace.to_std(), fake.entry.wait()).await {
                return exit;
            }
        }
        fake.end(killed(libc::SIGKILL), self.now(), &self.events)
            .await;
        fake.entry.wait().await
    }

    async fn wait(&self, id: ContainerId) -> Result<ExitRecord> {
        self.get(id)?.entry.wait().await
    }

    async fn delete(&self, id: ContainerId) -> Result<()> {
        let Ok(fake) = self.get(id) else {
            return Ok(());
        };
        if fake.entry.exit().is_none() {
            fake.end(killed(libc::SIGKILL), self.now(), &self.events)
                .await;
            fake.entry.wait().await?;
        }
        self.lock().remove(&id);
        fake.entry.removed();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ContainerInfo>> {
        Ok(self.lock().values().map(|f| f.entry.info()).collect())
    }

    async fn inspect(&self, id: ContainerId) -> Result<ContainerInfo> {
        Ok(self.get(id)?.entry.info())
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    async fn exec(&self, id: ContainerId, spec: ExecSpec) -> Result<ExecHandle> {
        let fake = self.get(id)?;
        let state = fake.entry.info().state;
        if state != RuntimeState::Running {
            return Err(RuntimeError::WrongState {
                id,
                state: state.name(),
                action: "run a command in",
            });
        }
        let script = (self.exec)(&fake.spec, &spec);
        let takes = script.takes.to_std();
        let info = ExitInfo {
            code: script.code,
            signal: None,
            oom: false,
        };
        Ok(ExecHandle {
            stdin: if spec.stdin {
                Some(Box::pin(tokio::io::sink()))
            } else {
                None
            },
            stdout: Box::pin(std::io::Cursor::new(script.stdout)),
            stderr: if spec.tty {
                None
            } else {
                Some(Box::pin(std::io::Cursor::new(script.stderr)))
            },
            control: Arc::new(NoControl),
            exit: sleep(takes).map(move |()| Ok(info)).boxed(),
        })
    }

    async fn logs(&self, id: ContainerId, query: LogQuery) -> Result<LogStream> {
        let fake = self.get(id)?;
        Ok(stream_lines(
            fake.lines.subscribe(),
            fake.entry.ended(),
            query,
        ))
    }

    async fn stats(&self, id: ContainerId) -> Result<ContainerStats> {
        let fake = self.get(id)?;
        let limit = fake.spec.limits.memory.map(|m| m.0);
        Ok(ContainerStats {
            memory_limit_bytes: limit,
            pids: 1,
            ..ContainerStats::default()
        })
    }
}

struct NoControl;

#[async_trait]
impl ExecControl for NoControl {
    async fn resize(&self, _: u16, _: u16) -> Result<()> {
        Ok(())
    }

    async fn signal(&self, _: i32) -> Result<()> {
        Ok(())
    }
}

fn stream_lines(
    lines: watch::Receiver<Vec<LogLine>>,
    ended: watch::Receiver<bool>,
    query: LogQuery,
) -> LogStream {
    let wants = move |line: &LogLine| {
        let stream = match line.source {
            LogSource::Stdout => query.stdout,
            LogSource::Stderr => query.stderr,
            LogSource::System => true,
        };
        stream && query.since.is_none_or(|since| line.time >= since)
    };
    let wanted = lines.borrow().iter().filter(|l| wants(l)).count() as u64;
    let skip = query.tail.map_or(0, |tail| wanted.saturating_sub(tail));
    futures::stream::unfold(
        (lines, ended, 0_usize),
        move |(mut lines, mut ended, mut at)| async move {
            loop {
                let was_ended = !query.follow || *ended.borrow_and_update();
                let next = lines.borrow_and_update().get(at).cloned();
                if let Some(line) = next {
                    at += 1;
                    if wants(&line) {
                        return Some((Ok(line), (lines, ended, at)));
                    }
                    continue;
                }
                if was_ended {
                    return None;
                }
                tokio::select! {
                    more = lines.changed() => more.ok()?,
                    _ = ended.changed() => {}
                }
            }
        },
    )
    .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    .boxed()
}
