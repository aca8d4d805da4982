//! Code generation from `.proto` files, for build scripts. Needs no protoc.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), quintet_component::Error> {
//!     quintet_component::build::compile(&["bank.proto"])
//! }
//! ```
//! For each package a file `<package>.rs` is written to `OUT_DIR`, to be included with
//! [`include_proto!`](crate::include_proto). It holds the messages (prost), and for each service
//! `Bank`: the trait `Bank` to implement, its dispatcher `BankService`, and the factory type
//! `BankFactory<T>`. Beside it `<package>.descriptor` holds the descriptors of the package and all
//! it imports.
//!
//! `quintet/options.proto` and the files of google.protobuf need not be on disk: they are built in.
//!
//! Two libraries meet here and neither sees everything: prost-build makes the Rust code but drops
//! options it does not know, and the descriptors of protox keep them. So each service is read
//! twice: as a [`Class`], which also finds what is wrong with its options, and by prost-build for
//! the Rust names.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_build::{Comments, Config, Module, Service, ServiceGenerator};
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::{Class, Error, Kind, OPTIONS_PROTO};

/// Where [`OPTIONS_PROTO`] is found by `import`.
pub const OPTIONS_PATH: &str = "quintet/options.proto";

/// One file that [`generate`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Its name: `bank.rs`, `bank.descriptor`.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Generates code for these files, named from the package's directory, into `OUT_DIR`. Files they
/// import are looked for in the directories of these files and in the package's directory.
pub fn compile(protos: &[impl AsRef<Path>]) -> Result<(), Error> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let protos: Vec<PathBuf> = protos.iter().map(|proto| root.join(proto)).collect();
    let mut includes: Vec<PathBuf> = Vec::new();
    for directory in protos.iter().filter_map(|proto| proto.parent()).chain([root.as_path()]) {
        if !includes.iter().any(|include| include == directory) {
            includes.push(directory.to_owned());
        }
    }
    let (files, read) = generate_tracked(&protos, &includes)?;
    for path in &read {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    write_to(&out, &files)
}

/// Generates code for these files, with imports looked for in `includes`, and writes nothing.
pub fn generate(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
) -> Result<Vec<Generated>, Error> {
    generate_tracked(protos, includes).map(|(files, _)| files)
}

/// Writes generated files; those that are already as they should be are not touched.
pub fn write_to(directory: &Path, files: &[Generated]) -> Result<(), Error> {
    for file in files {
        let path = directory.join(&file.name);
        if fs::read(&path).is_ok_and(|content| content == file.content) {
            continue;
        }
        fs::write(&path, &file.content)
            .map_err(|error| Error::new(format!("{}: cannot write: {error}", path.display())))?;
    }
    Ok(())
}

fn generate_tracked(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
) -> Result<(Vec<Generated>, Vec<PathBuf>), Error> {
    let mut resolver = ChainFileResolver::new();
    for include in includes {
        resolver.add(IncludeFileResolver::new(include.as_ref().to_owned()));
    }
    resolver.add(Options);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for proto in protos {
        let proto = proto.as_ref();
        compiler.open_file(proto).map_err(|error| blame(proto, &error))?;
    }
    let read: Vec<PathBuf> =
        compiler.files().filter_map(|file| file.path().map(Path::to_owned)).collect();

    let pool = compiler.descriptor_pool();
    let classes = Class::all_in(&pool)?;

    let mut set = compiler.file_descriptor_set();
    set.file.retain(|file| file.name() != OPTIONS_PATH && file.package() != "google.protobuf");
    let packages: Vec<String> = set.file.iter().map(|file| file.package().to_owned()).collect();
    if let Some(file) = set.file.iter().find(|file| file.package().is_empty()) {
        return Err(Error::new(format!(
            "{}: has no package: a class needs a full name, add package ...;",
            file.name()
        )));
    }

    let mut config = Config::new();
    config
        .prost_path("::quintet_component::prost")
        .prost_types_path("::quintet_component::prost_types")
        .service_generator(Box::new(Generator { classes }));
    let requests = set
        .file
        .into_iter()
        .map(|file| (Module::from_protobuf_package_name(file.package()), file))
        .collect();
    let modules = config
        .generate(requests)
        .map_err(|error| Error::new(format!("code generation: {error}")))?;

    let mut files: Vec<Generated> = modules
        .into_iter()
        .map(|(module, code)| Generated {
            name: module.to_file_name_or("_"),
            content: code.into_bytes(),
        })
        .collect();
    compiler.include_source_info(false);
    let descriptor = compiler.encode_file_descriptor_set();
    for package in packages {
        let name = descriptor_name(&package);
        if !files.iter().any(|file| file.name == name) {
            files.push(Generated { name, content: descriptor.clone() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((files, read))
}

fn descriptor_name(package: &str) -> String {
    format!("{package}.descriptor")
}

fn variable(name: &str) -> Result<String, Error> {
    env::var(name).map_err(|_| {
        Error::new(format!("{name} is not set: call quintet_component::build::compile from a build script (build.rs)"))
    })
}

/// What protox says, with the file it says it of.
fn blame(proto: &Path, error: &protox::Error) -> Error {
    let file = error.file().map_or_else(|| proto.display().to_string(), str::to_owned);
    let mut text = format!("{file}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    Error::new(text)
}

/// Finds [`OPTIONS_PATH`] without a file.
struct Options;

impl FileResolver for Options {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == OPTIONS_PATH {
            File::from_source(name, OPTIONS_PROTO)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// Writes the trait, the dispatcher and the factory type of each service.
struct Generator {
    classes: Vec<Class>,
}

const CRATE: &str = "::quintet_component";

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, out: &mut String) {
        let name = format!("{}.{}", service.package, service.proto_name);
        // Every service of the set is a class: both were made from the same files.
        let Some(class) = self.classes.iter().find(|class| class.name() == name) else { return };
        // Writing to a String cannot fail.
        let _ = write_trait(&service, class, out);
        let _ = write_dispatcher(&service, class, out);
    }
}

/// What the `.proto` says of an item, and an empty line if it says anything.
fn write_comments(comments: &Comments, indent: u8, out: &mut String) -> std::fmt::Result {
    comments.append_with_indent(indent, out);
    if comments.leading.is_empty() && comments.trailing.is_empty() {
        return Ok(());
    }
    writeln!(out, "{:width$}///", "", width = 4 * usize::from(indent))
}

fn write_trait(service: &Service, class: &Class, out: &mut String) -> std::fmt::Result {
    write_comments(&service.comments, 0, out)?;
    writeln!(
        out,
        "/// The methods of class `{}`, to be implemented by a component.",
        class.name()
    )?;
    writeln!(out, "pub trait {}: {CRATE}::State + Send + Sync + 'static {{", service.name)?;
    for (method, described) in service.methods.iter().zip(class.methods()) {
        write_comments(&method.comments, 1, out)?;
        let (this, context, kind) = match described.kind() {
            Kind::Update => ("&mut self", "&mut ", "Update"),
            Kind::Read => ("&self", "&", "Read"),
        };
        writeln!(out, "    /// {kind} `{}`.", described.path())?;
        writeln!(
            out,
            "    fn {}({this}, context: {context}{CRATE}::Context, request: {}) -> \
             ::core::result::Result<{}, {CRATE}::Status>;",
            method.name, method.input_type, method.output_type
        )?;
    }
    writeln!(out, "}}")
}

fn write_dispatcher(service: &Service, class: &Class, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    let class_name = class.name();
    let descriptor = descriptor_name(&service.package);
    writeln!(out, "/// Connects a [`{name}`] to the platform.")?;
    writeln!(out, "#[derive(Clone, Copy, Debug)]\npub struct {name}Service;")?;
    writeln!(out, "/// The factory of a [`{name}`] that begins as its `Default`.")?;
    writeln!(out, "pub type {name}Factory<T> = {CRATE}::Linked<{name}Service, T>;")?;
    // A service may have no updates or no reads; then the arguments are not used.
    writeln!(out, "#[allow(unused_variables, clippy::all)]")?;
    writeln!(out, "impl<T: {name}> {CRATE}::Service<T> for {name}Service {{")?;
    writeln!(out, "    const CLASS: &'static str = \"{class_name}\";")?;
    writeln!(out, "    const DESCRIPTOR: &'static [u8] = include_bytes!(\"{descriptor}\");")?;
    for kind in [Kind::Update, Kind::Read] {
        let (function, this, context) = match kind {
            Kind::Update => ("update", "component: &mut T", "context: &mut "),
            Kind::Read => ("read", "component: &T", "context: &"),
        };
        let methods: Vec<_> = service
            .methods
            .iter()
            .zip(class.methods())
            .filter(|(_, described)| described.kind() == kind)
            .collect();
        writeln!(
            out,
            "    fn {function}({this}, method: u32, {context}{CRATE}::Context, request: &[u8]) -> \
             ::core::result::Result<::std::vec::Vec<u8>, {CRATE}::Status> {{"
        )?;
        writeln!(out, "        match method {{")?;
        for (method, described) in methods {
            let (id, call) = (described.id(), &method.name);
            let request = described.descriptor().input();
            let request = request.full_name();
            writeln!(out, "            {id} => {{")?;
            writeln!(
                out,
                "                let request = {CRATE}::dispatch::decode(\"{request}\", request)?;"
            )?;
            writeln!(
                out,
                "                let reply = {name}::{call}(component, context, request)?;"
            )?;
            writeln!(out, "                Ok({CRATE}::prost::Message::encode_to_vec(&reply))")?;
            writeln!(out, "            }}")?;
        }
        writeln!(
            out,
            "            _ => Err({CRATE}::dispatch::no_method(\"{class_name}\", \"{function}\", \
             method)),"
        )?;
        writeln!(out, "        }}\n    }}")?;
    }
    writeln!(out, "}}")
}
