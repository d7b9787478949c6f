//! types → message → bytes → message → types is the identity; equal values give equal bytes; and no
//! bytes whatsoever make decoding or converting panic.

use proptest::prelude::*;
use prost::Message;
use std::fmt::Debug;
use warren_proto::{ConvertError, session, store, testing, v1};

fn identity<T, M>(value: &T) -> Result<(), TestCaseError>
where
    T: PartialEq + Debug + TryFrom<M, Error = ConvertError>,
    M: Message + Default + for<'a> From<&'a T>,
{
    let bytes = M::from(value).encode_to_vec();
    prop_assert_eq!(&bytes, &M::from(value).encode_to_vec(), "not deterministic");
    let message = M::decode(bytes.as_slice()).expect("own bytes");
    let back = T::try_from(message).expect("own message");
    prop_assert_eq!(&back, value);
    Ok(())
}

macro_rules! identities {
    ($($name:ident: $strategy:ident, $message:ident;)+) => {
        proptest! {
            $(
                #[test]
                fn $name(value in testing::$strategy()) {
                    identity::<_, store::$message>(&value)?;
                }
            )+
        }
    };
}

identities! {
    service_specs: service_spec, ServiceSpec;
    services: service, Service;
    containers: container, Container;
    container_statuses: container_status, ContainerStatus;
    nodes: node, Node;
    secrets: secret, Secret;
    configs: config, Config;
    volumes: volume, Volume;
    networks: network, Network;
    ingresses: ingress, Ingress;
    certificates: certificate, Certificate;
    settings: cluster_settings, ClusterSettings;
    tokens: join_token, JoinToken;
    events: event, Event;
}

/// A service whose spec in force is that of its revision carries it once.
#[test]
fn a_shared_spec_is_written_once_and_shared_again() {
    use std::sync::Arc;
    use warren_types::{Service, ServiceRevision, ServiceSpec};
    let spec = Arc::new(ServiceSpec {
        name: "x".repeat(1000),
        ..ServiceSpec::default()
    });
    let revision = |number| ServiceRevision {
        number,
        spec: Arc::clone(&spec),
        created_at: warren_types::Timestamp(1),
        actor: "a".to_owned(),
    };
    let service = Service {
        id: warren_types::ServiceId::from_u128(1),
        spec: Arc::clone(&spec),
        revision: 1,
        revisions: vec![revision(1)],
        rollout: None,
        deleting: false,
        created_at: warren_types::Timestamp(1),
        updated_at: warren_types::Timestamp(1),
        version: warren_types::Revision(1),
    };
    let bytes = store::Service::from(&service).encode_to_vec();
    assert!(bytes.len() < 1500, "{} bytes", bytes.len());
    let back = Service::try_from(store::Service::decode(bytes.as_slice()).unwrap()).unwrap();
    assert!(Arc::ptr_eq(&back.spec, &back.revisions[0].spec));
}

#[test]
fn an_error_names_the_field() {
    let mut message = store::ServiceSpec::from(&warren_types::ServiceSpec::default());
    let mount = store::Mount { kind: None };
    message.container.as_mut().unwrap().mounts = vec![mount];
    let error = warren_types::ServiceSpec::try_from(message).unwrap_err();
    assert_eq!(error.field, "container.mounts[0].kind");
    let message = store::Container {
        id: vec![1, 2],
        ..Default::default()
    };
    assert_eq!(
        warren_types::Container::try_from(message)
            .unwrap_err()
            .field,
        "id"
    );
}

macro_rules! survives {
    ($bytes:ident: $($message:ty $(=> $type:ident)?),+ $(,)?) => {$(
        if let Ok(message) = <$message>::decode($bytes.as_slice()) {
            // Whether it converts does not matter, that it returns does.
            drop(format!("{message:?}"));
            $(drop(warren_types::$type::try_from(message));)?
        }
    )+};
}

fn all_decoders(bytes: &[u8]) {
    let bytes = bytes.to_vec();
    survives!(bytes:
        store::ServiceSpec => ServiceSpec, store::Service => Service, store::Container => Container,
        store::Node => Node, store::Secret => Secret, store::Config => Config, store::Volume => Volume,
        store::Network => Network, store::Ingress => Ingress, store::Certificate => Certificate,
        store::ClusterSettings => ClusterSettings, store::JoinToken => JoinToken, store::Event => Event,
        session::WorkerMessage, session::ManagerMessage,
        v1::Service, v1::GetLogsRequest,
        v1::HealthCheck => HealthCheck, v1::RestartPolicy => RestartPolicy,
        v1::ResourceRequirements => Resources, v1::PortMapping => PortMapping,
        v1::IngressRule => IngressRule,
    );
    if let Ok(message) = v1::CreateServiceRequest::decode(bytes.as_slice()) {
        drop(warren_proto::convert::spec_from_create(message));
    }
    if let Ok(message) = v1::UpdateServiceRequest::decode(bytes.as_slice()) {
        let present = warren_types::ServiceSpec::default();
        drop(warren_proto::convert::spec_from_update(&present, message));
    }
    if let Ok(message) = v1::UpdateServiceImageRequest::decode(bytes.as_slice()) {
        let present = warren_types::ServiceSpec::default();
        drop(warren_proto::convert::spec_from_image_update(
            &present, message,
        ));
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        all_decoders(&bytes);
    }

    /// True messages with flipped bytes get further in than noise does.
    #[test]
    fn mutated_messages_decode_or_are_refused(
        service in testing::service(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = store::Service::from(&service).encode_to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        all_decoders(&bytes);
    }
}
