//! Snapshots: magic, format, then one zstd frame (with its own checksum) of length-delimited records.
//!
//! Records come in the order of [`RecordKind`]; the last one carries their number and the state hash,
//! so that a snapshot that was cut, spliced or written from another state is found out.

use super::message::{self as pb, Record, RecordKind as R, id_bytes, read_id};
use super::{DecodeError, malformed};
use crate::change::ObjectKind;
use crate::command::{OpResult, StatusRefusal};
use crate::hash::HASH_SCHEME;
use crate::index;
use crate::state::ClusterState;
use crate::table::Object;
use crate::window::Remembered;
use prost::Message;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use warren_proto::ConvertError;
use warren_types::{
    ActualState, Container, NodeId, Owner, Revision, ServiceId, Timestamp, TransitionError, limits,
};

/// Format of the snapshots that this program writes, and the newest that it reads. Since format 2
/// removed nodes are in it, and fields of nodes and settings that a program which knows format 1 alone
/// would drop without a word.
pub const SNAPSHOT_FORMAT: u32 = 2;
/// First bytes of every snapshot.
const MAGIC: [u8; 8] = *b"WRNSTATE";
/// Magic and format.
const HEADER_BYTES: usize = MAGIC.len() + 4;
/// Fast, and already three quarters of what the slowest level gives.
const ZSTD_LEVEL: i32 = 1;
/// Largest window that the reader accepts, as a power of two: 8 MiB of memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Largest record: a service with `SERVICE_REVISIONS_MAX` specs of the largest size.
const RECORD_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most bytes of a record's length (a protobuf varint of 64 bits).
const VARINT_BYTES_MAX: u32 = 10;
const SNAPSHOT: &str = "snapshot";

impl ClusterState {
    /// The state as bytes.
    #[must_use]
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_snapshot(&mut bytes)
            .expect("writing to memory does not fail, and the compressor's settings are constants");
        bytes
    }

    /// Writes the state; `out` need not be buffered.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_snapshot(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&SNAPSHOT_FORMAT.to_le_bytes())?;
        let mut frame = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
        frame.include_checksum(true)?;
        let mut writer = Writer {
            frame,
            buffer: Vec::new(),
            records: 0,
        };
        writer.raw(R::Begin(pb::Begin {
            revision: self.revision.0,
        }))?;
        self.write_rows(&mut writer)?;
        for (id, at) in self.removed.entries() {
            writer.record(R::RemovedNode(pb::RemovedNode {
                id: id_bytes(id.0),
                at_ms: at.0,
            }))?;
        }
        for (key, remembered) in self.window.entries() {
            writer.record(R::Remembered(pb::Remembered {
                key: key.to_string(),
                revision: remembered.revision.0,
                results: remembered.results.iter().map(write_result).collect(),
            }))?;
        }
        let records = writer.records;
        writer.raw(R::End(pb::End {
            records,
            hash: self.hash(),
            hash_scheme: HASH_SCHEME,
        }))?;
        writer.frame.finish()?.flush()
    }

    fn write_rows<W: Write>(&self, writer: &mut Writer<'_, W>) -> io::Result<()> {
        for row in self.settings.values() {
            writer.record(R::Settings((&**row).into()))?;
        }
        for row in self.nodes.values() {
            writer.record(R::Node((&**row).into()))?;
        }
        for row in self.services.values() {
            writer.record(R::Service((&**row).into()))?;
        }
        for row in self.containers.values() {
            writer.record(R::Container((&**row).into()))?;
        }
        for row in self.secrets.values() {
            writer.record(R::Secret((&**row).into()))?;
        }
        for row in self.configs.values() {
            writer.record(R::Config((&**row).into()))?;
        }
        for row in self.volumes.values() {
            writer.record(R::Volume((&**row).into()))?;
        }
        for row in self.networks.values() {
            writer.record(R::Network((&**row).into()))?;
        }
        for row in self.ingresses.values() {
            writer.record(R::Ingress((&**row).into()))?;
        }
        for row in self.certificates.values() {
            writer.record(R::Certificate((&**row).into()))?;
        }
        for row in self.tokens.values() {
            writer.record(R::Token((&**row).into()))?;
        }
        Ok(())
    }

    /// The state out of a snapshot.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are cut, damaged, or of a newer format.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read_snapshot(bytes)
    }

    /// Reads a state; memory is used for one record at a time beside the state itself.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are cut, damaged, or of a newer format.
    pub fn read_snapshot(mut input: impl BufRead) -> Result<Self, DecodeError> {
        let mut header = [0_u8; HEADER_BYTES];
        input.read_exact(&mut header).map_err(bad)?;
        let (magic, format) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(bad("it does not begin like one"));
        }
        let found = format
            .try_into()
            .map_or(0, |bytes: [u8; 4]| u32::from_le_bytes(bytes));
        if found == 0 {
            return Err(bad("its format is 0"));
        }
        if found > SNAPSHOT_FORMAT {
            return Err(DecodeError::NewerVersion {
                what: SNAPSHOT,
                found,
                supported: SNAPSHOT_FORMAT,
            });
        }
        let mut frame = zstd::stream::read::Decoder::with_buffer(input).map_err(bad)?;
        frame.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(bad)?;
        let mut reader = Reader {
            frame: frame.single_frame(),
            state: Self::new(),
            order: 0,
            records: 0,
        };
        while reader.next()? {}
        let mut rest = [0_u8; 1];
        // Reading on to the end makes the decompressor compare its checksum.
        if reader.frame.read(&mut rest).map_err(bad)? != 0 {
            return Err(bad("it goes on after its end"));
        }
        if !reader.frame.finish().fill_buf().map_err(bad)?.is_empty() {
            return Err(bad("something follows it"));
        }
        Ok(reader.state)
    }
}

fn bad(problem: impl ToString) -> DecodeError {
    malformed(SNAPSHOT, problem)
}

struct Writer<'a, W: Write> {
    frame: zstd::stream::write::Encoder<'a, W>,
    buffer: Vec<u8>,
    records: u64,
}

impl<W: Write> Writer<'_, W> {
    fn record(&mut self, kind: R) -> io::Result<()> {
        self.records += 1;
        self.raw(kind)
    }

    fn raw(&mut self, kind: R) -> io::Result<()> {
        self.buffer.clear();
        Record { kind: Some(kind) }
            .encode_length_delimited(&mut self.buffer)
            .map_err(io::Error::other)?;
        self.frame.write_all(&self.buffer)
    }
}

struct Reader<F> {
    frame: F,
    state: ClusterState,
    /// Order of the last record's kind.
    order: u8,
    /// Records after `Begin`.
    records: u64,
}

impl<F: Read> Reader<F> {
    /// Reads one record; `false` after the last.
    fn next(&mut self) -> Result<bool, DecodeError> {
        let len = self.length()?;
        if len > RECORD_BYTES_MAX {
            return Err(bad(format!("a record has {len} bytes")));
        }
        // Memory grows with what is really there, not with what the length claims.
        let mut bytes = Vec::new();
        let read = (&mut self.frame).take(len).read_to_end(&mut bytes);
        if read.map_err(bad)? as u64 != len {
            return Err(bad("it ends in the middle of a record"));
        }
        let record = Record::decode(bytes.as_slice()).map_err(bad)?;
        let kind = record
            .kind
            .ok_or_else(|| bad("a record is of no known kind"))?;
        let order = order(&kind);
        let again = matches!(kind, R::Begin(_));
        if order < self.order || (again && self.order != 0) || (self.order == 0 && !again) {
            return Err(bad("its records are out of order"));
        }
        self.order = order;
        self.take(kind)
    }

    fn length(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for at in 0..VARINT_BYTES_MAX {
            let mut byte = [0_u8; 1];
            self.frame.read_exact(&mut byte).map_err(bad)?;
            let bits = u64::from(byte[0] & 0x7f);
            value |= bits
                .checked_shl(at * 7)
                .ok_or_else(|| bad("a record's length is too long"))?;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad("a record's length is too long"))
    }

    fn take(&mut self, kind: R) -> Result<bool, DecodeError> {
        self.records += 1;
        match kind {
            R::Begin(begin) => {
                self.records = 0;
                self.state.revision = Revision(begin.revision);
                Ok(())
            }
            R::Settings(m) => self.row::<warren_types::ClusterSettings, _>(m, 1),
            R::Node(m) => self.row::<warren_types::Node, _>(m, limits::NODES_MAX),
            R::Service(m) => self.row::<warren_types::Service, _>(m, limits::SERVICES_MAX),
            R::Container(m) => self.container(m),
            R::Secret(m) => self.row::<warren_types::Secret, _>(m, limits::OBJECTS_PER_KIND_MAX),
            R::Config(m) => self.row::<warren_types::Config, _>(m, limits::OBJECTS_PER_KIND_MAX),
            R::Volume(m) => self.row::<warren_types::Volume, _>(m, limits::OBJECTS_PER_KIND_MAX),
            R::Network(m) => self.row::<warren_types::Network, _>(m, limits::OBJECTS_PER_KIND_MAX),
            R::Ingress(m) => self.row::<warren_types::Ingress, _>(m, limits::OBJECTS_PER_KIND_MAX),
            R::Certificate(m) => {
                self.row::<warren_types::Certificate, _>(m, limits::OBJECTS_PER_KIND_MAX)
            }
            R::Token(m) => self.row::<warren_types::JoinToken, _>(m, limits::TOKENS_MAX),
            R::RemovedNode(m) => self.removed_node(&m),
            R::Remembered(m) => self.remembered(m),
            R::End(end) => {
                self.end(&end)?;
                return Ok(false);
            }
        }?;
        Ok(true)
    }

    fn row<T, M>(&mut self, message: M, max: usize) -> Result<(), DecodeError>
    where
        T: Object + TryFrom<M, Error = ConvertError>,
    {
        let row = T::try_from(message).map_err(content)?;
        self.insert(row, max)
    }

    fn insert<T: Object>(&mut self, row: T, max: usize) -> Result<(), DecodeError> {
        let (kind, table) = (T::KIND, T::table(&self.state));
        let named = row.name().is_some_and(|n| table.by_name(n).is_some());
        if table.get(row.key()).is_some() || named {
            return Err(bad(format!("{kind} {:?} is there twice", row.label())));
        }
        if table.len() >= max {
            return Err(bad(format!("it has more than {max} {kind} records")));
        }
        self.state.replace(row.key(), Some(Arc::new(row)));
        Ok(())
    }

    fn container(&mut self, message: warren_proto::store::Container) -> Result<(), DecodeError> {
        let row = Container::try_from(message).map_err(content)?;
        // The indexes need the spec, which services bring before.
        if self.state.spec_of(&row).is_none() {
            return Err(bad(format!("container {} has no revision", row.id)));
        }
        self.insert(row, limits::CONTAINERS_MAX)
    }

    fn removed_node(&mut self, message: &pb::RemovedNode) -> Result<(), DecodeError> {
        let id = NodeId(read_id(&message.id, "id").map_err(content)?);
        let known = self.state.removed.get(id).is_some() || self.state.node(id).is_some();
        if known || self.state.removed.len() >= limits::REMOVED_NODES_MAX {
            return Err(bad(format!("removed node {id} does not fit")));
        }
        self.state.removed.insert(id, Timestamp(message.at_ms));
        Ok(())
    }

    fn remembered(&mut self, message: pb::Remembered) -> Result<(), DecodeError> {
        let known = self.state.window.get(&message.key).is_some();
        if known || self.state.window.len() >= limits::IDEMPOTENCY_KEYS_KEPT {
            return Err(bad("its idempotency keys are not in order"));
        }
        let results = message.results.into_iter().map(read_result);
        let remembered = Remembered {
            revision: Revision(message.revision),
            results: results.collect::<Result<_, _>>().map_err(content)?,
        };
        self.state.window.insert(&message.key, remembered);
        Ok(())
    }

    fn end(&mut self, end: &pb::End) -> Result<(), DecodeError> {
        if self.records - 1 != end.records {
            let (found, wanted) = (self.records - 1, end.records);
            return Err(bad(format!("it has {found} records instead of {wanted}")));
        }
        if end.hash_scheme == HASH_SCHEME && end.hash != self.state.hash() {
            return Err(bad("its content does not come to its hash"));
        }
        let nodes: Vec<u128> = self.state.nodes.rows.keys().map(|k| k.id()).collect();
        for node in nodes {
            index::overbooked(&mut self.state, node);
        }
        Ok(())
    }
}

fn content(source: ConvertError) -> DecodeError {
    DecodeError::Content {
        what: SNAPSHOT,
        source,
    }
}

const fn order(kind: &R) -> u8 {
    match kind {
        R::Begin(_) => 1,
        R::Settings(_) => 2,
        R::Node(_) => 3,
        R::Service(_) => 4,
        R::Container(_) => 5,
        R::Secret(_) => 6,
        R::Config(_) => 7,
        R::Volume(_) => 8,
        R::Network(_) => 9,
        R::Ingress(_) => 10,
        R::Certificate(_) => 11,
        R::Token(_) => 12,
        R::RemovedNode(_) => 13,
        R::Remembered(_) => 14,
        R::End(_) => 15,
    }
}

const REFUSAL_UNKNOWN: u32 = 1;
const REFUSAL_NOT_ASSIGNED: u32 = 2;
const REFUSAL_TRANSITION: u32 = 3;

fn write_result(result: &OpResult) -> pb::OpResult {
    use pb::ResultKind as K;
    let kind = match result {
        OpResult::Changed { kind, id, version } => K::Changed(pb::ObjectResult {
            kind: *kind as u32,
            id: id_bytes(*id),
            version: version.0,
        }),
        OpResult::Removed { kind, id } => K::Removed(pb::ObjectResult {
            kind: *kind as u32,
            id: id_bytes(*id),
            version: 0,
        }),
        OpResult::Service {
            id,
            revision,
            version,
            rollout,
        } => K::Service(pb::ServiceResult {
            id: id_bytes(id.0),
            revision: *revision,
            version: version.0,
            rollout: *rollout,
        }),
        OpResult::Statuses(items) => K::Statuses(pb::StatusesResult {
            items: items.iter().map(write_answer).collect(),
        }),
    };
    pb::OpResult { kind: Some(kind) }
}

fn write_answer(answer: &Option<StatusRefusal>) -> pb::StatusAnswer {
    let plain = |refusal| pb::StatusAnswer {
        refusal,
        ..pb::StatusAnswer::default()
    };
    match answer {
        None => plain(0),
        Some(StatusRefusal::Unknown) => plain(REFUSAL_UNKNOWN),
        Some(StatusRefusal::NotAssigned) => plain(REFUSAL_NOT_ASSIGNED),
        Some(StatusRefusal::Transition(step)) => pb::StatusAnswer {
            refusal: REFUSAL_TRANSITION,
            from: step.from as u32,
            from_attempt: step.from_attempt,
            to: step.to as u32,
            to_attempt: step.to_attempt,
        },
    }
}

fn read_result(message: pb::OpResult) -> Result<OpResult, ConvertError> {
    use pb::ResultKind as K;
    let object = |number: u32| {
        ObjectKind::from_number(number)
            .ok_or_else(|| ConvertError::new("kind", format!("{number} is not known")))
    };
    let missing = || ConvertError::new("result", "is missing");
    Ok(match message.kind.ok_or_else(missing)? {
        K::Changed(m) => OpResult::Changed {
            kind: object(m.kind)?,
            id: read_id(&m.id, "id")?,
            version: Revision(m.version),
        },
        K::Removed(m) => OpResult::Removed {
            kind: object(m.kind)?,
            id: read_id(&m.id, "id")?,
        },
        K::Service(m) => OpResult::Service {
            id: ServiceId(read_id(&m.id, "id")?),
            revision: m.revision,
            version: Revision(m.version),
            rollout: m.rollout,
        },
        K::Statuses(m) => {
            let items = m.items.iter().map(read_answer);
            OpResult::Statuses(items.collect::<Result<_, _>>()?)
        }
    })
}

fn read_answer(message: &pb::StatusAnswer) -> Result<Option<StatusRefusal>, ConvertError> {
    let state = |number: u32| {
        ActualState::from_number(number)
            .ok_or_else(|| ConvertError::new("state", format!("{number} is not known")))
    };
    Ok(match message.refusal {
        0 => None,
        REFUSAL_UNKNOWN => Some(StatusRefusal::Unknown),
        REFUSAL_NOT_ASSIGNED => Some(StatusRefusal::NotAssigned),
        REFUSAL_TRANSITION => Some(StatusRefusal::Transition(TransitionError {
            from: state(message.from)?,
            from_attempt: message.from_attempt,
            to: state(message.to)?,
            to_attempt: message.to_attempt,
            owner: Owner::Worker,
        })),
        other => {
            let problem = format!("{other} is not known");
            return Err(ConvertError::new("refusal", problem));
        }
    })
}
