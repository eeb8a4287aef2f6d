//! Weights as SafeTensors files, by parameter path. Does not know what else a checkpoint holds.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kindling_config::{LoraConfig, ModelConfig, Seed};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::{Adapter, Gpt, ModelError};

/// Values on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

/// Where the metadata of a file says its version.
const VERSION_KEY: &str = "kindling";
/// Version of the files that this crate writes.
const VERSION: &str = "1";
/// Where the metadata of an adapter's file has its [`AdapterHeader`]; it has no [`VERSION_KEY`], so that nobody takes it for a model.
const ADAPTER_KEY: &str = "kindling-adapter";
/// Version of the files of adapters that this crate writes.
const ADAPTER_VERSION: u32 = 1;

/// The path of the classification head.
const CLASS_EMBEDDING: &str = "class_embedding.weight";

/// What the file of an adapter says beside its values, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdapterHeader {
    version: u32,
    /// XXH3-128 of the file of weights that it stands beside.
    base: String,
    lora: LoraConfig,
}

/// Every parameter of a module with its path, such as `blocks.0.attn.qkv.weight`, in the module's order.
///
/// # Panics
/// If the device fails to give its data.
pub fn named_parameters<M: Module>(module: &M) -> Vec<(String, HostTensor)> {
    collect(module, false)
}

/// Those of them that are trained: not frozen, and on a device with autodiff.
///
/// # Panics
/// If the device fails to give its data.
pub fn trained_parameters<M: Module>(module: &M) -> Vec<(String, HostTensor)> {
    collect(module, true)
}

fn collect<M: Module>(module: &M, trained_only: bool) -> Vec<(String, HostTensor)> {
    struct Collect {
        trained_only: bool,
        path: Vec<String>,
        out: Vec<(String, HostTensor)>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() || !self.trained_only {
                self.out.push((self.path.join("."), to_host(param.val())));
            }
        }
    }
    let mut collect = Collect { trained_only, path: Vec::new(), out: Vec::new() };
    module.visit(&mut collect);
    collect.out
}

/// Copies a tensor to the host.
///
/// # Panics
/// If the device fails to give its data.
pub fn to_host<const D: usize>(tensor: Tensor<D>) -> HostTensor {
    let shape = tensor.dims().to_vec();
    HostTensor { shape, values: tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32") }
}

/// Gives every parameter of `model` the values that stand under its path.
///
/// # Errors
/// [`ModelError::Tensor`] if a path is missing, left over, or has another shape; `path` goes into the message.
pub fn with_parameters<M: Module>(model: M, mut values: BTreeMap<String, HostTensor>, path: &Path) -> Result<M, ModelError> {
    let wrong =
        |name: &str, found: String, expected: String| ModelError::Tensor { path: path.to_owned(), name: name.to_owned(), found, expected };
    for (name, tensor) in named_parameters(&model) {
        let found = values.get(&name).ok_or_else(|| wrong(&name, "missing".into(), format!("of shape {:?}", tensor.shape)))?;
        if found.shape != tensor.shape {
            return Err(wrong(&name, format!("of shape {:?}", found.shape), format!("{:?}", tensor.shape)));
        }
    }
    let mut replace = Replace { path: Vec::new(), values: &mut values };
    let model = model.map(&mut replace);
    match values.keys().next() {
        Some(name) => Err(wrong(name, "there".into(), "no such tensor in this model".into())),
        None => Ok(model),
    }
}

struct Replace<'a> {
    path: Vec<String>,
    values: &'a mut BTreeMap<String, HostTensor>,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let host = self.values.remove(&self.path.join(".")).expect("checked before mapping");
        let (id, old, mapper) = param.consume();
        let device = if old.is_autodiff() { old.device().inner() } else { old.device() };
        let new = Tensor::<D>::from_data(TensorData::new(host.values, host.shape), &device);
        let new = if old.is_autodiff() { Tensor::from_inner(new).set_require_grad(old.is_require_grad()) } else { new };
        Param::from_mapped_value(id, new, mapper)
    }
}

/// Writes the model's weights and syncs the file; an adapter beside them is not part of it.
///
/// # Errors
/// [`ModelError::Io`] with the path.
pub fn save(model: &Gpt, path: &Path) -> Result<(), ModelError> {
    write_tensors(named_parameters(&model.without_adapter()), path)
}

/// Writes an adapter, with what the weights that it stands beside are known by: `base_hash`, the XXH3-128 of their file. Syncs the file.
///
/// # Errors
/// [`ModelError::Io`] with the path.
pub fn save_adapter(adapter: &Adapter, base_hash: &str, path: &Path) -> Result<(), ModelError> {
    let header = AdapterHeader { version: ADAPTER_VERSION, base: base_hash.to_owned(), lora: adapter.config().clone() };
    let header = serde_json::to_string(&header).expect("plain data serialises");
    write(named_parameters(adapter), (ADAPTER_KEY, &header), path)
}

/// Reads an adapter for the model whose weights are in a file with the hash `base_hash`.
///
/// # Errors
/// A file that cannot be read, is damaged, holds no adapter, or one for other weights.
pub fn load_adapter(path: &Path, base_hash: &str, model: &ModelConfig, device: &Device) -> Result<Adapter, ModelError> {
    let version = |found: Option<String>| ModelError::Version { path: path.to_owned(), key: ADAPTER_KEY, found, expected: "1" };
    let format = |message: String| ModelError::Format { path: path.to_owned(), message };
    let (header, values) = read(path, ADAPTER_KEY, |header| {
        let header: serde_json::Value = header.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(|| version(None))?;
        if header["version"] != ADAPTER_VERSION {
            return Err(version(Some(header["version"].to_string())));
        }
        let header: AdapterHeader = serde_json::from_value(header).map_err(|error| format(error.to_string()))?;
        if header.base != base_hash {
            return Err(ModelError::Base { path: path.to_owned(), found: header.base, expected: base_hash.to_owned() });
        }
        header.lora.validate(model).map_err(|error| format(error.to_string()))?;
        Ok(header.lora)
    })?;
    // The values drawn here are all replaced; the seed does not matter.
    with_parameters(Adapter::new(&header, model, Seed(0), device), values, path)
}

/// Reads weights into a model of the given shape on `device`.
///
/// # Errors
/// A file that cannot be read, is damaged, or belongs to a model of another shape.
pub fn load(path: &Path, config: &ModelConfig, device: &Device) -> Result<Gpt, ModelError> {
    let values = read_tensors(path)?;
    // The weights drawn here are all replaced; the seed does not matter.
    with_parameters(Gpt::new(config, Seed(0), device), values, path)
}

/// Reads the weights that a model of this shape begins with. A head over classes of another number than theirs is drawn from `seed`, and
/// so is one that they do not have.
///
/// # Errors
/// As [`load`].
pub fn load_base(path: &Path, config: &ModelConfig, seed: Seed, device: &Device) -> Result<Gpt, ModelError> {
    let mut values = read_tensors(path)?;
    let fits = |head: &HostTensor| head.shape == [config.n_classes, config.d_model];
    if values.get(CLASS_EMBEDDING).is_some_and(fits) {
        return with_parameters(Gpt::new(config, Seed(0), device), values, path);
    }
    values.remove(CLASS_EMBEDDING);
    let headless = ModelConfig { n_classes: 0, ..config.clone() };
    Ok(with_parameters(Gpt::new(&headless, Seed(0), device), values, path)?.with_head(config, seed))
}

/// Writes named f32 tensors as a SafeTensors file and syncs it.
///
/// # Errors
/// [`ModelError::Io`] with the path.
pub fn write_tensors(tensors: impl IntoIterator<Item = (String, HostTensor)>, path: &Path) -> Result<(), ModelError> {
    write(tensors, (VERSION_KEY, VERSION), path)
}

fn write(tensors: impl IntoIterator<Item = (String, HostTensor)>, (key, value): (&str, &str), path: &Path) -> Result<(), ModelError> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, tensor)| (name, tensor.shape, tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).expect("four bytes a value");
        (name.as_str(), view)
    });
    // A single entry: the order of several would differ from file to file.
    let metadata = HashMap::from([(key.to_owned(), value.to_owned())]);
    let file = safetensors::serialize(views, Some(metadata)).expect("names are distinct and shapes fit");
    let write = || -> std::io::Result<()> {
        let mut out = std::fs::File::create(path)?;
        out.write_all(&file)?;
        out.sync_all()
    };
    write().map_err(|source| ModelError::Io { doing: "write", path: path.to_owned(), source })
}

/// Reads a SafeTensors file of f32 tensors.
///
/// # Errors
/// A file that cannot be read, is damaged, or holds another type than f32.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, HostTensor>, ModelError> {
    let check = |found: Option<String>| match found {
        Some(found) if found == VERSION => Ok(()),
        found => Err(ModelError::Version { path: path.to_owned(), key: VERSION_KEY, found, expected: VERSION }),
    };
    Ok(read(path, VERSION_KEY, check)?.1)
}

/// What `understand` makes of a SafeTensors file's metadata for `key`, before anything else is looked at, and the file's tensors.
fn read<T>(
    path: &Path,
    key: &str,
    understand: impl FnOnce(Option<String>) -> Result<T, ModelError>,
) -> Result<(T, BTreeMap<String, HostTensor>), ModelError> {
    let bytes = std::fs::read(path).map_err(|source| ModelError::Io { doing: "read", path: path.to_owned(), source })?;
    let format = |message: String| ModelError::Format { path: path.to_owned(), message };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| format(error.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| format(error.to_string()))?;
    let understood = understand(header.metadata().as_ref().and_then(|metadata| metadata.get(key)).cloned())?;
    let mut out = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            let (found, expected) = (format!("of type {:?}", view.dtype()), "F32".into());
            return Err(ModelError::Tensor { path: path.to_owned(), name: name.to_owned(), found, expected });
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        out.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok((understood, out))
}
