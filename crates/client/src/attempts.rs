//! When a call is made again, and where.
//!
//! Three outcomes of a failed attempt matter. *Not taken* (the manager says so in its metadata) and *not sent* (no
//! connection) mean that nothing has happened: any call may be made again. *Unknown* (the connection broke under the call)
//! may mean anything: only calls that do no harm twice are made again.

use crate::connect::Client;
use crate::error::{ClientError, ErrorKind, connect_failure, is_unsent};
use crate::generated::api::warren_api_client::WarrenApiClient;
use crate::http2::Http2;
use crate::link::Link;
use crate::pool::Pool;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use warren_proto::headers;

/// Tries of a call that is safe to repeat, after outcomes that are not known; and rounds through all addresses when none
/// can be reached.
const TRIES_MAX: u32 = 4;
/// Wait before the second try; doubles.
const RETRY_WAIT: Duration = Duration::from_millis(50);
/// Wait after the first refusal of a call that was not taken; doubles.
const REFUSED_WAIT: Duration = Duration::from_millis(20);
/// Longest wait between refused attempts: a new leader is found soon after it is elected.
const REFUSED_WAIT_MAX: Duration = Duration::from_millis(160);
/// What is left of a call's limit when refused attempts end, so that the reason of the refusal is told and not the limit.
const REFUSED_MARGIN: Duration = Duration::from_millis(500);
/// Time for repeating refused openings of streams, which have no limit of their own.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// Beginning of the error when no address could be reached.
pub(crate) const NOBODY: &str = "no manager can be reached";

/// May the call be repeated when it is not known whether the first one arrived?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same thing once.
    Safe,
    /// It might happen twice.
    Never,
}

/// What a failed attempt means.
enum Outcome {
    /// The manager has answered; repeating changes nothing.
    Answered(ClientError),
    /// Refused by a manager that does not lead or has no quorum.
    NotTaken {
        error: ClientError,
        leader: Option<String>,
    },
    /// It has not left this side.
    NotSent(ClientError),
    /// It may have happened.
    Unknown(ClientError),
}

impl Outcome {
    fn of(status: Status) -> Self {
        if status.metadata().contains_key(headers::NOT_APPLIED) {
            let leader = status
                .metadata()
                .get(headers::LEADER)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            return Self::NotTaken {
                error: status.into(),
                leader,
            };
        }
        if let Some(source) = status.source() {
            if connect_failure(source).is_some() || is_unsent(source) {
                return Self::NotSent(status.into());
            }
            // Made on this side: the connection broke under the call.
            if matches!(
                status.code(),
                Code::Unknown | Code::Unavailable | Code::Internal
            ) {
                return Self::Unknown(status.into());
            }
        }
        if status.code() == Code::Unavailable {
            return Self::Unknown(status.into());
        }
        Self::Answered(status.into())
    }
}

/// The story of one call so far.
struct Attempts<'a> {
    pool: &'a Pool,
    repeat: Repeat,
    began: Instant,
    /// How long refused attempts go on.
    patience: Duration,
    refused_wait: Duration,
    tries: u32,
    /// Addresses without a connection in this round, with the reasons.
    unreachable: Vec<ClientError>,
    /// An attempt may have happened.
    unknown: bool,
}

impl<'a> Attempts<'a> {
    fn new(pool: &'a Pool, repeat: Repeat, patience: Duration) -> Self {
        Self {
            pool,
            repeat,
            began: Instant::now(),
            patience,
            refused_wait: REFUSED_WAIT,
            tries: 1,
            unreachable: Vec::new(),
            unknown: false,
        }
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    /// Why there is none.
    async fn after(&mut self, link: &Arc<Link>, outcome: Outcome) -> Result<(), ClientError> {
        match outcome {
            Outcome::Answered(error) => Err(error),
            Outcome::NotTaken { error, leader } => self.refused(link, error, leader).await,
            Outcome::NotSent(error) => self.unreachable(link, error).await,
            Outcome::Unknown(error) => {
                self.unreachable.clear();
                self.unknown = true;
                self.pool.leave(link, false);
                if self.repeat == Repeat::Never || self.tries >= TRIES_MAX {
                    return Err(error);
                }
                self.pause().await;
                Ok(())
            }
        }
    }

    async fn refused(
        &mut self,
        link: &Arc<Link>,
        error: ClientError,
        leader: Option<String>,
    ) -> Result<(), ClientError> {
        self.unreachable.clear();
        let known = leader.is_some_and(|leader| self.pool.prefer(&leader));
        if !known {
            self.pool.leave(link, false);
        }
        let wait = jittered(self.refused_wait);
        if self.began.elapsed() + wait > self.patience {
            return Err(self.certain_or_not(error));
        }
        // The leader is asked at once, unless it has just been asked.
        if !known || self.refused_wait > REFUSED_WAIT {
            tokio::time::sleep(wait).await;
        }
        self.refused_wait = (self.refused_wait * 2).min(REFUSED_WAIT_MAX);
        Ok(())
    }

    async fn unreachable(
        &mut self,
        link: &Arc<Link>,
        error: ClientError,
    ) -> Result<(), ClientError> {
        self.pool.leave(link, true);
        self.unreachable.push(error);
        if self.unreachable.len() < self.pool.len() {
            return Ok(());
        }
        let error = nobody(std::mem::take(&mut self.unreachable));
        if error.kind != ErrorKind::Unavailable || self.tries >= TRIES_MAX {
            return Err(self.certain_or_not(error));
        }
        self.pause().await;
        Ok(())
    }

    async fn pause(&mut self) {
        let doubled = RETRY_WAIT * 2_u32.pow(self.tries.min(TRIES_MAX) - 1);
        self.tries += 1;
        tokio::time::sleep(jittered(doubled)).await;
    }

    /// The last attempt has certainly not happened; an earlier one may have.
    fn certain_or_not(&self, mut error: ClientError) -> ClientError {
        match (error.kind, self.unknown) {
            (ErrorKind::Unavailable, false) => error.kind = ErrorKind::NotTaken,
            (ErrorKind::NotTaken, true) => error.kind = ErrorKind::Unavailable,
            _ => {}
        }
        error
    }
}

/// Half to all of the time, so that callers that were refused together do not come back together.
fn jittered(time: Duration) -> Duration {
    let mut byte = [0_u8];
    // Without randomness they do come back together, which is slower and not wrong.
    let share = SystemRandom::new()
        .fill(&mut byte)
        .map_or(255, |()| byte[0]);
    time / 2 + time.mul_f64(f64::from(share) / 510.0)
}

/// One error of many addresses.
pub(crate) fn nobody(failed: Vec<ClientError>) -> ClientError {
    // What has a remedy of its own stands for itself: the local socket, files.
    if let [only] = failed.as_slice()
        && !only.remedy.is_empty()
    {
        return only.clone();
    }
    let refused = failed.iter().any(|e| e.kind == ErrorKind::PermissionDenied);
    let (kind, remedy) = if refused {
        (
            ErrorKind::PermissionDenied,
            "the certificates of this client and of the manager do not belong together; copy those of an admin again",
        )
    } else {
        (
            ErrorKind::Unavailable,
            "check the address and that a manager runs there",
        )
    };
    let texts: Vec<_> = failed.into_iter().map(|e| e.message).collect();
    ClientError::new(kind, format!("{NOBODY} ({})", texts.join("; ")), remedy)
}

fn no_address() -> ClientError {
    ClientError::new(
        ErrorKind::InvalidArgument,
        "no manager address is known",
        "name one with --manager",
    )
}

impl Client {
    /// Makes a call, within the time limit, again when that is safe and nobody answered.
    pub(crate) async fn call<Req, Resp, F, Fut>(
        &self,
        name: &'static str,
        limit: Duration,
        repeat: Repeat,
        request: Req,
        send: F,
    ) -> Result<Resp, ClientError>
    where
        Req: Clone,
        F: Fn(WarrenApiClient<Http2>, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let began = Instant::now();
        let patience = self
            .patience()
            .map_or(limit, |patience| patience.min(limit))
            .min(limit.saturating_sub(REFUSED_MARGIN));
        let attempts = self.attempt(repeat, patience, |channel| {
            let mut message = self.request(request.clone());
            message.set_timeout(limit.saturating_sub(began.elapsed()));
            send(self.api_over(channel), message)
        });
        tokio::time::timeout(limit, attempts)
            .await
            .unwrap_or_else(|_| {
                Err(ClientError::new(
                    ErrorKind::DeadlineExceeded,
                    format!("{name} got no answer within {} s", limit.as_secs()),
                    if repeat == Repeat::Safe {
                        "try again"
                    } else {
                        "look at the state before you repeat it"
                    },
                ))
            })
            .map(Response::into_inner)
    }

    /// Opens a stream; like a call, but without time limit.
    pub(crate) async fn open<Resp, F, Fut>(
        &self,
        repeat: Repeat,
        send: F,
    ) -> Result<Response<Resp>, ClientError>
    where
        F: Fn(Http2) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let patience = self.patience().unwrap_or(STREAM_PATIENCE);
        self.attempt(repeat, patience, send).await
    }

    /// A connection to whichever manager answers, for calls that can be attempted once only.
    pub(crate) async fn any_channel(&self) -> Result<Http2, ClientError> {
        let pool = self.pool();
        let mut failed = Vec::new();
        loop {
            let link = pool.current().ok_or_else(no_address)?;
            match link.channel(pool.connect_limit()).await {
                Ok(channel) => return Ok(channel),
                Err(error) => failed.push(error),
            }
            pool.leave(&link, true);
            if failed.len() >= pool.len() {
                return Err(nobody(failed));
            }
        }
    }

    async fn attempt<Resp, F, Fut>(
        &self,
        repeat: Repeat,
        patience: Duration,
        send: F,
    ) -> Result<Response<Resp>, ClientError>
    where
        F: Fn(Http2) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let pool = self.pool();
        let mut attempts = Attempts::new(pool, repeat, patience);
        loop {
            let link = pool.current().ok_or_else(no_address)?;
            let outcome = match link.channel(pool.connect_limit()).await {
                Err(error) => Outcome::NotSent(error),
                Ok(channel) => match send(channel).await {
                    Ok(response) => {
                        self.note(&link, response.metadata());
                        return Ok(response);
                    }
                    Err(status) => Outcome::of(status),
                },
            };
            attempts.after(&link, outcome).await?;
        }
    }
}
