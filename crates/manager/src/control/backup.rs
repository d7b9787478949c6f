//! A consistent backup of the cluster: the state as it is now, the data keys, sealed by the caller's passphrase.

use super::{Control, info};
use crate::edge;
use futures::StreamExt;
use std::io::{self, Write};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use warren_api::{ApiError, ApiResult, ApiStream};
use warren_proto::v1;
use warren_security::Keyring;
use warren_security::backup::{BackupError, BackupInfo, BackupRandom, BackupWriter};
use warren_state::ClusterState;

/// Pieces that wait for a slow reader; then the writing waits.
const PIECES_WAITING_MAX: usize = 4;

/// The backup in pieces. It is made as fast as it is read; nothing of it touches this manager's disk.
pub(super) fn stream(
    control: &Control,
    request: v1::BackupClusterRequest,
) -> ApiResult<ApiStream<v1::BackupChunk>> {
    let state = control.state();
    let about = BackupInfo {
        cluster: info::settings(&state)?.id,
        created_at: edge::now(),
    };
    let mut keys = Keyring::new();
    for key in control.secrets.export() {
        keys.insert(key);
    }
    let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let end = sender.clone();
        let written = write(&state, about, &request.passphrase, &keys, Pieces(sender));
        if let Err(error) = written {
            let refused = match error {
                BackupError::WeakPassphrase => {
                    ApiError::field("passphrase", error.to_string(), "give a longer one")
                }
                other => ApiError::internal(other.to_string()),
            };
            // A reader that has gone needs no reason.
            let _ = end.blocking_send(Err(refused));
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

fn write(
    state: &ClusterState,
    about: BackupInfo,
    passphrase: &str,
    keys: &Keyring,
    out: Pieces,
) -> Result<(), BackupError> {
    let random = BackupRandom {
        salt: edge::random(),
        content_key: edge::random(),
    };
    let mut writer = BackupWriter::new(out, about, passphrase, keys, random)?;
    state.write_snapshot(&mut writer)?;
    writer.finish()?;
    Ok(())
}

/// Hands what is written on to the reader.
struct Pieces(mpsc::Sender<ApiResult<v1::BackupChunk>>);

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let chunk = v1::BackupChunk {
            data: data.to_vec(),
        };
        let sent = self.0.blocking_send(Ok(chunk));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
