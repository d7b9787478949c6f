//! Operations on secrets, configs, volumes, networks, certificates, ingresses, tokens, settings.

use super::Tx;
use super::nodes::misrouted;
use super::services::{live_specs, references};
use crate::change::ObjectKind;
use crate::command::{Op, OpResult};
use crate::rejection::{MissingReference, Rejection};
use crate::table::Object;
use warren_types::{
    Certificate, ClusterSettings, Config, Ingress, JoinToken, Network, Node, NodeId, Revision,
    SealedData, Secret, TokenId, TokenState, ValidationError, Volume, VolumeId, limits,
};

impl Tx<'_> {
    pub(super) fn object_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op.kind() {
            ObjectKind::Secret => self.secret_op(op),
            ObjectKind::Config => self.config_op(op),
            ObjectKind::Volume => self.volume_op(op),
            ObjectKind::Network => self.network_op(op),
            ObjectKind::Certificate => self.certificate_op(op),
            ObjectKind::Ingress => self.ingress_op(op),
            ObjectKind::Token => self.token_op(op),
            _ => self.settings_op(op),
        }
    }

    fn secret_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::SecretCreate(secret) => {
                secret.validate()?;
                let mut secret = (**secret).clone();
                secret.created_at = self.time;
                self.create(secret, limits::OBJECTS_PER_KIND_MAX, "secrets")
            }
            Op::SecretUpdate { expect, secret } => {
                let before = self.expect::<Secret>(secret.key(), *expect)?;
                same_name(&*before, &**secret)?;
                secret.validate()?;
                let after = Secret {
                    labels: secret.labels.clone(),
                    data: secret.data.clone(),
                    size: secret.size,
                    ..(*before).clone()
                };
                Ok(self.put(&*before, after))
            }
            Op::SecretReseal { id, expect, data } => {
                let before = self.expect::<Secret>(id.as_u128(), *expect)?;
                check_reseal(&*before, &before.data, data)?;
                let mut after = Secret::clone(&before);
                after.data = data.clone();
                Ok(self.put_same(&*before, after))
            }
            Op::SecretDelete { id, expect } => self.delete_unused::<Secret>(id.as_u128(), *expect),
            _ => Err(misrouted(op)),
        }
    }

    fn config_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::ConfigCreate(config) => {
                config.validate()?;
                let mut config = (**config).clone();
                config.created_at = self.time;
                self.create(config, limits::OBJECTS_PER_KIND_MAX, "configs")
            }
            Op::ConfigUpdate { expect, config } => {
                let before = self.expect::<Config>(config.key(), *expect)?;
                same_name(&*before, &**config)?;
                config.validate()?;
                let after = Config {
                    labels: config.labels.clone(),
                    data: config.data.clone(),
                    ..(*before).clone()
                };
                Ok(self.put(&*before, after))
            }
            Op::ConfigDelete { id, expect } => self.delete_unused::<Config>(id.as_u128(), *expect),
            _ => Err(misrouted(op)),
        }
    }

    fn volume_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::VolumeCreate(volume) => {
                volume.validate()?;
                if let Some(node) = volume.node {
                    self.get::<Node>(node.as_u128())?;
                }
                let mut volume = (**volume).clone();
                volume.created_at = self.time;
                self.create(volume, limits::OBJECTS_PER_KIND_MAX, "volumes")
            }
            Op::VolumeBind {
                id,
                expect,
                node,
                mount_path,
            } => self.volume_bind(*id, *expect, *node, mount_path),
            Op::VolumeDelete { id, expect } => self.delete_unused::<Volume>(id.as_u128(), *expect),
            _ => Err(misrouted(op)),
        }
    }

    fn volume_bind(
        &mut self,
        id: VolumeId,
        expect: Option<Revision>,
        node: NodeId,
        mount_path: &str,
    ) -> Result<OpResult, Rejection> {
        let before = self.expect::<Volume>(id.as_u128(), expect)?;
        self.get::<Node>(node.as_u128())?;
        if let Some(home) = before.node
            && home != node
        {
            return Err(Rejection::NotNow {
                kind: ObjectKind::Volume,
                id: before.name.clone(),
                reason: format!("its data is on node {home}"),
                remedy: "make another volume, and copy the data",
            });
        }
        let mut after = Volume::clone(&before);
        after.node = Some(node);
        if !mount_path.is_empty() {
            mount_path.clone_into(&mut after.mount_path);
        }
        after.validate()?;
        Ok(self.put(&*before, after))
    }

    fn network_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::NetworkCreate(network) => {
                network.validate()?;
                let mut network = (**network).clone();
                network.created_at = self.time;
                self.create(network, limits::OBJECTS_PER_KIND_MAX, "networks")
            }
            Op::NetworkDelete { id, expect } => {
                self.delete_unused::<Network>(id.as_u128(), *expect)
            }
            _ => Err(misrouted(op)),
        }
    }

    /// Removes an object that no service names.
    fn delete_unused<T: Object>(
        &mut self,
        key: u128,
        expect: Option<Revision>,
    ) -> Result<OpResult, Rejection> {
        let object = self.expect::<T>(key, expect)?;
        let name = object.label();
        let by: Vec<String> = self
            .state
            .services()
            .filter(|service| {
                let specs = live_specs(self.state, service);
                specs
                    .iter()
                    .any(|s| references(s).any(|r| r == (T::KIND, name.as_str())))
            })
            .map(|service| format!("service {:?}", service.name()))
            .collect();
        if !by.is_empty() {
            return Err(Rejection::InUse {
                kind: T::KIND,
                name,
                by,
            });
        }
        Ok(self.remove::<T>(key))
    }

    fn certificate_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::CertificateCreate(certificate) => {
                certificate.validate()?;
                let mut certificate = (**certificate).clone();
                certificate.created_at = self.time;
                self.create(certificate, limits::OBJECTS_PER_KIND_MAX, "certificates")
            }
            Op::CertificateUpdate {
                expect,
                certificate,
            } => {
                let before = self.expect::<Certificate>(certificate.key(), *expect)?;
                same_name(&*before, &**certificate)?;
                certificate.validate()?;
                let mut after = (**certificate).clone();
                after.created_at = before.created_at;
                after.updated_at = before.updated_at;
                after.version = before.version;
                Ok(self.put(&*before, after))
            }
            Op::CertificateReseal { id, expect, data } => {
                let before = self.expect::<Certificate>(id.as_u128(), *expect)?;
                check_reseal(&*before, &before.key, data)?;
                let mut after = Certificate::clone(&before);
                after.key = data.clone();
                Ok(self.put_same(&*before, after))
            }
            Op::CertificateDelete { id, expect } => {
                let object = self.expect::<Certificate>(id.as_u128(), *expect)?;
                let users = self
                    .state
                    .ingresses()
                    .filter(|i| certificate_of(i).is_some_and(|name| name == object.name));
                let by: Vec<String> = users.map(|i| format!("ingress {:?}", i.name)).collect();
                if !by.is_empty() {
                    return Err(Rejection::InUse {
                        kind: ObjectKind::Certificate,
                        name: object.name.clone(),
                        by,
                    });
                }
                Ok(self.remove::<Certificate>(id.as_u128()))
            }
            _ => Err(misrouted(op)),
        }
    }

    fn ingress_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::IngressCreate(ingress) => {
                self.check_ingress(ingress)?;
                let mut ingress = (**ingress).clone();
                ingress.created_at = self.time;
                self.create(ingress, limits::OBJECTS_PER_KIND_MAX, "ingresses")
            }
            Op::IngressUpdate { expect, ingress } => {
                let before = self.expect::<Ingress>(ingress.key(), *expect)?;
                same_name(&*before, &**ingress)?;
                self.check_ingress(ingress)?;
                let after = Ingress {
                    rules: ingress.rules.clone(),
                    tls: ingress.tls.clone(),
                    labels: ingress.labels.clone(),
                    ..(*before).clone()
                };
                Ok(self.put(&*before, after))
            }
            Op::IngressDelete { id, expect } => {
                self.expect::<Ingress>(id.as_u128(), *expect)?;
                Ok(self.remove::<Ingress>(id.as_u128()))
            }
            _ => Err(misrouted(op)),
        }
    }

    fn check_ingress(&self, ingress: &Ingress) -> Result<(), Rejection> {
        ingress.validate()?;
        match certificate_of(ingress) {
            Some(name) if self.state.certificate_by_name(name).is_none() => {
                Err(Rejection::Missing {
                    kind: ObjectKind::Ingress,
                    name: ingress.name.clone(),
                    missing: vec![MissingReference {
                        kind: ObjectKind::Certificate,
                        name: name.to_owned(),
                    }],
                })
            }
            _ => Ok(()),
        }
    }

    fn token_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::TokenCreate(token) => {
                let mut token = (**token).clone();
                token.created_at = self.time;
                token.revoked = false;
                token.validate()?;
                self.create(token, limits::TOKENS_MAX, "join tokens")
            }
            Op::TokenUse { id } => self.token_use(*id),
            Op::TokenRevoke { id } => {
                let before = self.get::<JoinToken>(id.as_u128())?;
                let mut after = (*before).clone();
                after.revoked = true;
                Ok(self.put(&*before, after))
            }
            Op::TokenDelete { id } => {
                self.get::<JoinToken>(id.as_u128())?;
                Ok(self.remove::<JoinToken>(id.as_u128()))
            }
            _ => Err(misrouted(op)),
        }
    }

    fn token_use(&mut self, id: TokenId) -> Result<OpResult, Rejection> {
        let before = self.get::<JoinToken>(id.as_u128())?;
        let mut after = (*before).clone();
        let reason = match before.state(self.time) {
            TokenState::Valid => {
                after.uses_left = after.uses_left.map(|left| left.saturating_sub(1));
                return Ok(self.put(&*before, after));
            }
            TokenState::Revoked => "was revoked",
            TokenState::Expired => "has expired",
            TokenState::UsedUp => "is used up",
        };
        Err(Rejection::TokenRefused {
            id: id.to_string(),
            reason,
        })
    }

    /// A data key may leave the list only when nothing is sealed with it any more, and the newest one
    /// never.
    fn check_key_epochs(
        &self,
        before: &ClusterSettings,
        after: &ClusterSettings,
    ) -> Result<(), Rejection> {
        let kept = |epoch: u32| after.key_epochs.iter().any(|k| k.number == epoch);
        let known = before.key_epochs.iter().map(|k| k.number);
        let gone: Vec<u32> = known.filter(|n| !kept(*n)).collect();
        let newest = |s: &ClusterSettings| s.key_epochs.last().map_or(0, |k| k.number);
        if newest(after) < newest(before) {
            let problem = format!("data key {} is the newest", newest(before));
            return Err(
                ValidationError::one("keyEpochs", problem, "keep it, and add newer ones").into(),
            );
        }
        if gone.is_empty() {
            return Ok(());
        }
        let secrets = self.state.secrets().map(|s| (&s.data, "secret", &s.name));
        let keys = self.state.certificates();
        let keys = keys.map(|c| (&c.key, "certificate", &c.name));
        let own = std::iter::once((&after.ca.key, "the CA of", &after.name));
        let user = secrets
            .chain(keys)
            .chain(own)
            .find(|(data, _, _)| !data.ciphertext.is_empty() && gone.contains(&data.epoch));
        match user {
            Some((data, kind, name)) => Err(Rejection::NotNow {
                kind: ObjectKind::Settings,
                id: before.name.clone(),
                reason: format!("data key {} still seals {kind} {name:?}", data.epoch),
                remedy: "seal it with the newest data key first",
            }),
            None => Ok(()),
        }
    }

    fn settings_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::SettingsInit(settings) => {
                settings.validate()?;
                if let Some(present) = self.state.settings() {
                    return Err(Rejection::AlreadyExists {
                        kind: ObjectKind::Settings,
                        name: present.name.clone(),
                        note: ": the cluster was made before".to_owned(),
                    });
                }
                let mut settings = (**settings).clone();
                settings.created_at = self.time;
                self.create(settings, 1, "settings records")
            }
            Op::SettingsUpdate { expect, settings } => {
                let before = self.expect::<ClusterSettings>(settings.key(), *expect)?;
                settings.validate()?;
                self.check_key_epochs(&before, settings)?;
                let mut after = (**settings).clone();
                after.created_at = before.created_at;
                after.version = before.version;
                Ok(self.put(&*before, after))
            }
            _ => Err(misrouted(op)),
        }
    }
}

/// The same value in another sealing: as long as before, and by no older key. (A leader that was
/// overtaken must not bring an old key back after the rotation is over.)
fn check_reseal<T: Object>(
    object: &T,
    before: &SealedData,
    after: &SealedData,
) -> Result<(), Rejection> {
    let refuse = |problem: String| {
        let remedy = "seal the same value with the newest data key";
        Err(ValidationError::one("data", problem, remedy).into())
    };
    let label = object.label();
    if after.ciphertext.len() != before.ciphertext.len() {
        return refuse(format!("is not the value of {} {label:?}", T::KIND));
    }
    if after.epoch < before.epoch {
        let (old, new) = (after.epoch, before.epoch);
        return refuse(format!(
            "of {} {label:?} is sealed with data key {old}, older than {new}",
            T::KIND
        ));
    }
    Ok(())
}

/// The certificate object that an ingress needs.
pub(crate) fn certificate_of(ingress: &Ingress) -> Option<&str> {
    ingress
        .tls
        .as_ref()
        .filter(|tls| tls.enabled && !tls.auto_tls && !tls.secret_name.is_empty())
        .map(|tls| tls.secret_name.as_str())
}

fn same_name<T: Object>(before: &T, after: &T) -> Result<(), Rejection> {
    if before.name() == after.name() {
        return Ok(());
    }
    Err(ValidationError::one(
        "name",
        format!("{} {:?} keeps its name", T::KIND, before.label()),
        "create one with the new name and delete the old one",
    )
    .into())
}
