//! Node sessions.

use super::{Answers, Handlers, caller_of};
use crate::generated::session::node_session_server::NodeSession;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use warren_proto::session::{ManagerMessage, WorkerMessage};

#[tonic::async_trait]
impl NodeSession for Handlers {
    type SessionStream = Answers<ManagerMessage>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller_of(request.extensions())?;
        // A broken stream is an ended session: the node opens another.
        let inbound = request
            .into_inner()
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(|message| std::future::ready(message.ok()))
            .boxed();
        let control = self.control.clone();
        // The answer begins at once: the node sends its Hello when it sees that, not before.
        let outbound = async move { control.accept_session(&caller, inbound).await }
            .into_stream()
            .try_flatten()
            .boxed();
        Ok(Response::new(self.answers(outbound, |message| message)))
    }
}
