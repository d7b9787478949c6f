//! `warren apply`, `warren diff`: making the cluster as manifests say.
//!
//! Everything is read, checked and compared before the first change. Secrets and volumes come before
//! the services that use them.

use super::{all_failures, service};
use crate::api::{Api, NewSecret, NewVolume, SecretView, ServiceView, VolumeView};
use crate::args::{ApplyArgs, DiffArgs, WaitArgs};
use crate::diff::{self, FieldChange};
use crate::error::{CliError, Exit, Result};
use crate::io::Io;
use crate::manifest::{self, Manifest, SecretItem, SecretValue, VolumeItem};
use crate::wait::{self, Before};
use warren_types::ServiceSpec;

/// Labels of services that Warren itself sets begin so; `apply` leaves them alone.
pub(crate) const OWN_LABEL_PREFIX: &str = "warren.";

/// What is to be done about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// It does not exist yet.
    Create,
    /// It is different; the fields, where they can be told.
    Update(Vec<FieldChange>),
    /// Nothing.
    Unchanged,
    /// Nothing, and the user should know why.
    Skip(&'static str),
}

/// Plans for all objects of a manifest, in the order of the manifest.
#[derive(Debug)]
pub(crate) struct Plan {
    secrets: Vec<(SecretItem, Action)>,
    volumes: Vec<(VolumeItem, Action)>,
    services: Vec<(ServiceSpec, Action, Option<ServiceView>)>,
}

/// How to apply.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Set existing secrets.
    pub force_secrets: bool,
}

pub(crate) async fn run(args: ApplyArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let manifest = load(&args.files, io)?;
    let plan = plan(
        manifest,
        api,
        Options {
            force_secrets: args.force_secrets,
        },
    )
    .await?;
    if args.dry_run {
        check_services(&plan, api).await?;
        return io.print(&plan.text());
    }
    execute(plan, &args.wait, api, io).await.map(|_| ())
}

pub(crate) async fn run_diff(args: DiffArgs, api: &dyn Api, io: &mut Io) -> Result<u8> {
    let manifest = load(&args.files, io)?;
    let plan = plan(manifest, api, Options::default()).await?;
    io.print(&plan.text())?;
    Ok(u8::from(args.exit_code && plan.changes()))
}

fn load(files: &[std::path::PathBuf], io: &mut Io) -> Result<Manifest> {
    let manifest = manifest::load(files, io)?;
    for warning in &manifest.warnings {
        io.say(&format!("warning: {warning}"))?;
    }
    Ok(manifest)
}

/// Compares a manifest with the cluster.
pub(crate) async fn plan(manifest: Manifest, api: &dyn Api, options: Options) -> Result<Plan> {
    let secrets = if manifest.secrets.is_empty() {
        Vec::new()
    } else {
        api.secrets().await?
    };
    let volumes = if manifest.volumes.is_empty() {
        Vec::new()
    } else {
        api.volumes().await?
    };
    let services = if manifest.services.is_empty() {
        Vec::new()
    } else {
        api.services().await?
    };
    decide(manifest, &secrets, &volumes, &services, options)
}

/// The pure part of [`plan`].
pub(crate) fn decide(
    manifest: Manifest,
    secrets: &[SecretView],
    volumes: &[VolumeView],
    services: &[ServiceView],
    options: Options,
) -> Result<Plan> {
    let mut plan = Plan {
        secrets: Vec::new(),
        volumes: Vec::new(),
        services: Vec::new(),
    };
    for item in manifest.secrets {
        let exists = secrets.iter().any(|s| s.name == item.name);
        let action = match (&item.value, exists) {
            (SecretValue::External, true) => Action::Unchanged,
            (SecretValue::External, false) => {
                return Err(CliError::not_found(format!(
                    "secret {0} is external but does not exist",
                    item.name
                ))
                .remedy(format!(
                    "warren secret create {} --from-file FILE",
                    item.name
                )));
            }
            (SecretValue::Bytes(_), false) => Action::Create,
            (SecretValue::Bytes(_), true) if options.force_secrets => Action::Update(Vec::new()),
            (SecretValue::Bytes(_), true) => {
                Action::Skip("exists; its value is not compared, --force-secrets sets it")
            }
        };
        plan.secrets.push((item, action));
    }
    for item in manifest.volumes {
        let action = match volumes.iter().find(|v| v.name == item.name) {
            None => Action::Create,
            Some(v)
                if v.driver == item.driver
                    && v.driver_opts == item.driver_opts
                    && v.labels == item.labels =>
            {
                Action::Unchanged
            }
            Some(_) => Action::Skip("exists with other settings, and a volume cannot be changed"),
        };
        plan.volumes.push((item, action));
    }
    for mut spec in manifest.services {
        let old = services.iter().find(|s| s.name() == spec.name);
        if let Some(old) = old {
            let own = old
                .spec
                .labels
                .iter()
                .filter(|(k, _)| k.starts_with(OWN_LABEL_PREFIX));
            for (key, value) in own {
                spec.labels
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            }
            keep_forced(&old.spec, &mut spec);
        }
        let action = match old {
            None => Action::Create,
            Some(old) if old.deleting => {
                return Err(CliError::general(format!(
                    "service {} is being deleted; its containers are still ending",
                    spec.name
                ))
                .remedy("apply again when it is gone"));
            }
            Some(old) => match diff::services(&old.spec, &spec) {
                same if same.is_empty() => Action::Unchanged,
                changes => Action::Update(changes),
            },
        };
        plan.services.push((spec, action, old.cloned()));
    }
    Ok(plan)
}

/// A forced replacement of the containers is no difference to the manifest.
fn keep_forced(old: &ServiceSpec, new: &mut ServiceSpec) {
    let label = super::spec::FORCE_LABEL;
    if let Some(value) = old.container.labels.get(label) {
        new.container
            .labels
            .entry(label.to_owned())
            .or_insert_with(|| value.clone());
    }
}

impl Plan {
    fn changes(&self) -> bool {
        let changing = |a: &Action| matches!(a, Action::Create | Action::Update(_));
        self.secrets.iter().any(|(_, a)| changing(a))
            || self.volumes.iter().any(|(_, a)| changing(a))
            || self.services.iter().any(|(_, a, _)| changing(a))
    }

    /// What would be done, field by field.
    fn text(&self) -> String {
        let mut text = String::new();
        for (item, action) in &self.secrets {
            text.push_str(&would("secret", &item.name, action, &[]));
        }
        for (item, action) in &self.volumes {
            text.push_str(&would("volume", &item.name, action, &[]));
        }
        for (spec, action, _) in &self.services {
            let fields = if *action == Action::Create {
                diff::created(spec)
            } else {
                Vec::new()
            };
            text.push_str(&would("service", &spec.name, action, &fields));
        }
        text
    }
}

fn would(kind: &str, name: &str, action: &Action, created: &[FieldChange]) -> String {
    let (word, fields) = match action {
        Action::Create => ("create".to_owned(), created),
        Action::Update(changes) => ("change".to_owned(), changes.as_slice()),
        Action::Unchanged => ("unchanged".to_owned(), created),
        Action::Skip(why) => (format!("unchanged ({why})"), created),
    };
    let mut text = format!("{kind}/{name}: {word}\n");
    for field in fields {
        text.push_str(&format!("  {}\n", field.line()));
    }
    text
}

/// Lets the cluster check what it would be asked for. References to objects of the same manifest that
/// do not exist yet are no fault of it.
async fn check_services(plan: &Plan, api: &dyn Api) -> Result<()> {
    let pending = plan.secrets.iter().any(|(_, a)| *a == Action::Create)
        || plan.volumes.iter().any(|(_, a)| *a == Action::Create);
    let mut failures = Vec::new();
    for (spec, action, old) in &plan.services {
        let result = match (action, old) {
            (Action::Create, _) => api.create_service(spec, true).await,
            (Action::Update(_), Some(old)) => {
                api.update_service(&old.id, spec, old.version, true).await
            }
            _ => continue,
        };
        failures.extend(
            result
                .err()
                .filter(|e| !(pending && e.exit == Exit::NotFound)),
        );
    }
    all_failures(failures)
}

/// Carries a plan out and waits for the services; returns their names.
pub(crate) async fn execute(
    plan: Plan,
    wait: &WaitArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<Vec<String>> {
    for (item, action) in plan.secrets {
        let done = apply_secret(&item, &action, api).await?;
        io.print(&format!("secret/{} {done}\n", item.name))?;
    }
    for (item, action) in plan.volumes {
        let done = apply_volume(&item, &action, api).await?;
        io.print(&format!("volume/{} {done}\n", item.name))?;
    }
    let mut names = Vec::new();
    let mut waiting = Vec::new();
    let mut failures = Vec::new();
    for (spec, action, old) in plan.services {
        names.push(spec.name.clone());
        match apply_service(&spec, &action, old, api).await {
            Ok((view, before, done)) => {
                io.print(&format!("service/{} {done}\n", spec.name))?;
                waiting.push((view, before, action != Action::Unchanged));
            }
            Err(error) => failures.push(error),
        }
    }
    if !wait.detach {
        for (view, before, fresh) in waiting {
            let before = before.wanting(&view);
            match wait::service(api, io, &view.id, &before, wait.timeout, fresh).await {
                Ok(view) => io.say(&format!(
                    "service {}: {} running",
                    view.name(),
                    view.running
                ))?,
                Err(error) => failures.push(error),
            }
        }
    }
    all_failures(failures).map(|()| names)
}

async fn apply_secret(item: &SecretItem, action: &Action, api: &dyn Api) -> Result<String> {
    let SecretValue::Bytes(data) = &item.value else {
        return Ok("unchanged (external)".to_owned());
    };
    match action {
        Action::Create => {
            let secret = NewSecret {
                name: item.name.clone(),
                data: data.clone(),
                labels: item.labels.clone(),
            };
            api.create_secret(secret).await?;
            Ok("created".to_owned())
        }
        Action::Update(_) => {
            api.update_secret(&item.name, data.clone()).await?;
            Ok("changed".to_owned())
        }
        Action::Unchanged => Ok("unchanged".to_owned()),
        Action::Skip(why) => Ok(format!("unchanged ({why})")),
    }
}

async fn apply_volume(item: &VolumeItem, action: &Action, api: &dyn Api) -> Result<String> {
    match action {
        Action::Create => {
            let volume = NewVolume {
                name: item.name.clone(),
                driver: item.driver.clone(),
                driver_opts: item.driver_opts.clone(),
                labels: item.labels.clone(),
            };
            api.create_volume(volume).await?;
            Ok("created".to_owned())
        }
        Action::Skip(why) => Ok(format!("unchanged ({why})")),
        Action::Update(_) | Action::Unchanged => Ok("unchanged".to_owned()),
    }
}

async fn apply_service(
    spec: &ServiceSpec,
    action: &Action,
    old: Option<ServiceView>,
    api: &dyn Api,
) -> Result<(ServiceView, Before, &'static str)> {
    match (action, old) {
        (Action::Update(_), Some(old)) => {
            let before = service::before_update(api, &old).await?;
            let made = api
                .update_service(&old.id, spec, old.version, false)
                .await?;
            Ok((made, before, "changed"))
        }
        (_, Some(old)) => {
            let before = Before::of(api, &old.id).await?;
            Ok((old, before, "unchanged"))
        }
        (_, None) => {
            let made = api.create_service(spec, false).await?;
            Ok((made, Before::default(), "created"))
        }
    }
}
