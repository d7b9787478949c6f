//! Why a daemon command failed, for the person who typed it.

use warren_cli::CliError;

/// A failure with its way out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// With an exit status of the command line's table.
    Cli(CliError),
    /// Of the daemon's parts: what, where, remedy in one text; status 1.
    Daemon(String),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Cli(error)
    }
}

impl From<warren_client::ClientError> for Failure {
    fn from(error: warren_client::ClientError) -> Self {
        Self::Cli(error.into())
    }
}

macro_rules! daemon_failures {
    ($($kind:ty),+ $(,)?) => {$(
        impl From<$kind> for Failure {
            fn from(error: $kind) -> Self {
                Self::Daemon(error.to_string())
            }
        }
    )+};
}

daemon_failures!(
    warren_storage::StorageError,
    warren_manager::InitError,
    warren_manager::ManagerError,
    warren_manager::recovery::RecoveryError,
    warren_worker::WorkerError,
    warren_worker::ResetError,
    warren_api::BindError,
    warren_api::ServeError,
    warren_security::TlsError,
    std::io::Error,
);
