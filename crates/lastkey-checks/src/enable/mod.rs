//! The API server's encryption configuration: a first one, the next one, and the way back.
//!
//! Room      `checks`. Text in, text out; whoever calls it reads and writes the files.
//! Source    k8s.io/apiserver: pkg/server/options/encryptionconfig/config.go and the validation of
//!           apis/apiserver (names are unique in a file; no rule may stand behind a wildcard that
//!           takes its resource).
//! Holds     Providers that are there stay as they are, down to their keys, until the last step:
//!           what they sealed stays readable. `identity` is never first but on the way back.

mod steps;
mod write;

use crate::snapshot::yaml::{self, Node};

pub use self::steps::{Managed, Platform, managed, steps};

/// Resources that are encrypted when nobody names any: both hold credentials in practice.
pub const SECRETS_LIKE: [&str; 2] = ["secrets", "configmaps"];

/// How far the migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// New writes are sealed by the plugin, everything older stays readable.
    Start,
    /// All was rewritten: nothing but the plugin is left.
    Finish,
    /// New writes are in the clear again, what the plugin sealed stays readable.
    Back,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Name of the provider; it becomes part of every stored value and can never change.
    pub provider: String,
    /// Absolute path of the plugin's socket.
    pub socket: String,
    /// Resources as the configuration names them: `secrets`, `widgets.example.com`, `*.*`.
    pub resources: Vec<String>,
    /// How far the migration is.
    pub stage: Stage,
}

/// Why no configuration can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnableError {
    /// The API server would refuse the name.
    #[error("{0:?} cannot name a provider: use letters, digits, - and ., and no colon")]
    Provider(String),
    /// The API server would refuse the path.
    #[error("{0:?} is no socket: give an absolute path")]
    Socket(String),
    /// The API server would refuse the resource.
    #[error("{0:?} names no resource; write secrets, widgets.example.com, *., *.GROUP or *.*")]
    Resource(String),
    /// What is running is no YAML.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: u32,
        /// Why.
        reason: String,
    },
    /// What is running is something else.
    #[error("this is no EncryptionConfiguration")]
    Kind,
    /// The last step or the way back without what is running.
    #[error("give the configuration that is running: what it leaves out becomes unreadable")]
    NothingRuns,
    /// The provider is nowhere first, so nothing was migrated to it.
    #[error("{0:?} is first nowhere in what is running; start with it before the last step")]
    NotStarted(String),
    /// The name is taken by a plugin behind another socket.
    #[error("{0:?} is the name of a plugin with another socket; values under it would not open")]
    Taken(String),
}

/// One block of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Provider {
    /// Ours, under its name.
    Ours(String),
    Identity,
    /// As it stands, in one line.
    Kept(String),
}

/// The configuration that was asked for, as YAML. `running` is the one in force.
///
/// # Errors
/// [`EnableError`].
pub fn configuration(wanted: &Wanted, running: Option<&str>) -> Result<String, EnableError> {
    check(wanted)?;
    let mut blocks = match running {
        Some(text) => read(wanted, text)?,
        None if wanted.stage == Stage::Start => Vec::new(),
        None => return Err(EnableError::NothingRuns),
    };
    match wanted.stage {
        Stage::Start => start(wanted, &mut blocks),
        Stage::Finish => finish(wanted, &mut blocks)?,
        Stage::Back => back(wanted, &mut blocks)?,
    }
    Ok(write::text(wanted, &blocks))
}

/// Whether a configuration holds keys, so that it is a secret itself.
#[must_use]
pub fn holds_keys(text: &str) -> bool {
    let mut is_found = false;
    for (line, document) in yaml::documents(text) {
        if let Ok(root) = yaml::parse(document, line) {
            root.visit(&mut |node| is_found |= node.get("secret").is_there());
        }
    }
    is_found
}

fn check(wanted: &Wanted) -> Result<(), EnableError> {
    let is_name =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    if wanted.provider.is_empty() || !wanted.provider.chars().all(is_name) {
        return Err(EnableError::Provider(wanted.provider.clone()));
    }
    let is_path = wanted.socket.starts_with('/') && !wanted.socket.contains(char::is_control);
    if !is_path || wanted.socket.contains('"') {
        return Err(EnableError::Socket(wanted.socket.clone()));
    }
    match wanted.resources.iter().find(|name| !is_resource(name)) {
        Some(name) => Err(EnableError::Resource(name.clone())),
        None => Ok(()),
    }
}

/// A resource in the plural, `RESOURCE.GROUP`, or a wildcard. Events have to be `events`, and
/// the group `extensions` is no more.
fn is_resource(name: &str) -> bool {
    let is_label = |text: &str| {
        !text.is_empty()
            && text.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'
            })
    };
    let is_group = |group: &str| group.split('.').all(is_label);
    let allowed = name != "events.events.k8s.io" && !name.ends_with(".extensions");
    allowed
        && match name.split_once('.') {
            None => is_label(name),
            Some(("*", "" | "*")) => true,
            Some((resource, group)) => (resource == "*" || is_label(resource)) && is_group(group),
        }
}

fn read(wanted: &Wanted, text: &str) -> Result<Vec<Block>, EnableError> {
    let mut found = None;
    for (line, document) in yaml::documents(text) {
        let root = yaml::parse(document, line)
            .map_err(|error| EnableError::Syntax { line: error.line, reason: error.message })?;
        if root.get("kind").text() == Some("EncryptionConfiguration") {
            found = Some(root);
        }
    }
    let root = found.ok_or(EnableError::Kind)?;
    root.get("resources").items().iter().map(|block| read_block(wanted, block)).collect()
}

/// The resources of every block in which the plugin is, each once.
fn resources_of(wanted: &Wanted, text: &str) -> Vec<String> {
    let is_ours = |provider: &Provider| matches!(provider, Provider::Ours(_));
    let mut names = Vec::new();
    for block in read(wanted, text).unwrap_or_default() {
        if block.providers.iter().any(is_ours) {
            names.extend(block.resources.into_iter().filter(|name| !name.is_empty()));
        }
    }
    simplified(&names)
}

fn read_block(wanted: &Wanted, block: &Node) -> Result<Block, EnableError> {
    let resources = block.get("resources").texts().map(str::to_owned).collect();
    let providers = block.get("providers").items().iter().map(|node| read_provider(wanted, node));
    Ok(Block { resources, providers: providers.collect::<Result<_, _>>()? })
}

fn read_provider(wanted: &Wanted, node: &Node) -> Result<Provider, EnableError> {
    if node.get("identity").is_there()
        || node.entries().iter().any(|(kind, _)| &**kind == "identity")
    {
        return Ok(Provider::Identity);
    }
    let (name, endpoint) = (node.at("kms.name").str(), node.at("kms.endpoint").str());
    let is_ours = name == wanted.provider || numbered(&wanted.provider, name);
    if !is_ours {
        return Ok(Provider::Kept(write::flow(node)));
    }
    if endpoint == endpoint_of(wanted) {
        Ok(Provider::Ours(name.to_owned()))
    } else {
        Err(EnableError::Taken(name.to_owned()))
    }
}

/// Whether a name is ours for a further block: `NAME-2`.
fn numbered(provider: &str, name: &str) -> bool {
    let number = name.strip_prefix(provider).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > 1))
}

fn endpoint_of(wanted: &Wanted) -> String {
    format!("unix://{}", wanted.socket)
}

/// Puts the plugin first wherever a wanted resource is written, and adds a block for the rest.
fn start(wanted: &Wanted, blocks: &mut Vec<Block>) {
    let mut names = Names::new(wanted, blocks);
    let mut missing: Vec<String> = Vec::new();
    for resource in simplified(&wanted.resources) {
        match blocks.iter().position(|block| block.takes(&resource)) {
            Some(at) => {
                if let Some(block) = blocks.get_mut(at) {
                    block.put_first(&mut names);
                }
            }
            None => missing.push(resource),
        }
    }
    // A wildcard would mask what stands behind it, so it goes to the end.
    let (wild, named): (Vec<_>, Vec<_>) =
        missing.into_iter().partition(|name| name.starts_with('*'));
    match blocks.iter_mut().find(|block| block.reads_clear_behind_ours()) {
        Some(block) => block.resources.extend(named),
        None => add(blocks, 0, named, &mut names),
    }
    add(blocks, blocks.len(), wild, &mut names);
}

/// A new block, unless it would be for nothing.
fn add(blocks: &mut Vec<Block>, at: usize, resources: Vec<String>, names: &mut Names) {
    if !resources.is_empty() {
        let providers = vec![Provider::Ours(names.next()), Provider::Identity];
        blocks.insert(at, Block { resources, providers });
    }
}

fn finish(wanted: &Wanted, blocks: &mut [Block]) -> Result<(), EnableError> {
    let mut count = 0;
    for block in blocks {
        if let Some(ours @ Provider::Ours(_)) = block.providers.first().cloned() {
            block.providers = vec![ours];
            count += 1;
        }
    }
    if count == 0 { Err(EnableError::NotStarted(wanted.provider.clone())) } else { Ok(()) }
}

fn back(wanted: &Wanted, blocks: &mut [Block]) -> Result<(), EnableError> {
    let mut count = 0;
    for block in blocks {
        if block.providers.iter().any(|provider| matches!(provider, Provider::Ours(_))) {
            block.providers.retain(|provider| *provider != Provider::Identity);
            block.providers.insert(0, Provider::Identity);
            count += 1;
        }
    }
    if count == 0 { Err(EnableError::NotStarted(wanted.provider.clone())) } else { Ok(()) }
}

/// Without doubles and without what a wildcard of the same list takes.
fn simplified(resources: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for name in resources {
        let taken = resources
            .iter()
            .any(|other| other != name && other.starts_with('*') && takes(other, name));
        if !taken && !kept.contains(name) {
            kept.push(name.clone());
        }
    }
    kept
}

/// Whether an entry of a block takes a resource, or all that another wildcard takes.
fn takes(entry: &str, resource: &str) -> bool {
    let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
    let (known, known_group) = entry.split_once('.').unwrap_or((entry, ""));
    match (known, known_group) {
        ("*", "*") => true,
        ("*", _) => known_group == group,
        _ => known == name && known_group == group,
    }
}

impl Block {
    fn takes(&self, resource: &str) -> bool {
        self.resources.iter().any(|entry| takes(entry, resource))
    }

    /// Whether objects in the clear could be moved to the plugin by this block.
    fn reads_clear_behind_ours(&self) -> bool {
        matches!(self.providers.first(), Some(Provider::Ours(_)))
            && self.providers.contains(&Provider::Identity)
    }

    /// The plugin first, the others in their order, identity last.
    fn put_first(&mut self, names: &mut Names) {
        let had_identity = self.providers.contains(&Provider::Identity);
        let ours = self.providers.iter().position(|p| matches!(p, Provider::Ours(_)));
        let first = match ours {
            Some(at) => self.providers.remove(at),
            None => Provider::Ours(names.next()),
        };
        self.providers.retain(|provider| *provider != Provider::Identity);
        self.providers.insert(0, first);
        if had_identity {
            self.providers.push(Provider::Identity);
        }
    }
}

/// Names of the plugin, one for each block: the API server refuses a file with one name twice.
struct Names {
    provider: String,
    taken: Vec<String>,
}

impl Names {
    fn new(wanted: &Wanted, blocks: &[Block]) -> Self {
        let providers = blocks.iter().flat_map(|block| &block.providers);
        let taken = providers.filter_map(|provider| match provider {
            Provider::Ours(name) => Some(name.clone()),
            Provider::Identity | Provider::Kept(_) => None,
        });
        Self { provider: wanted.provider.clone(), taken: taken.collect() }
    }

    fn next(&mut self) -> String {
        let numbered = (2..).map(|number: u32| format!("{}-{number}", self.provider));
        let mut names = std::iter::once(self.provider.clone()).chain(numbered);
        let name = names.find(|name| !self.taken.contains(name)).unwrap_or_default();
        self.taken.push(name.clone());
        name
    }
}

#[cfg(test)]
mod tests;
