//! Weights as SafeTensors files, by parameter path. Does not know what else a checkpoint holds.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kindling_config::{ModelConfig, Seed};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Gpt, ModelError};

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

/// Every parameter of a module with its path, such as `blocks.0.attn.qkv.weight`, in the module's order.
///
/// # Panics
/// If the device fails to give its data.
pub fn named_parameters<M: Module>(module: &M) -> Vec<(String, HostTensor)> {
    struct Collect {
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
            self.out.push((self.path.join("."), to_host(param.val())));
        }
    }
    let mut collect = Collect { path: Vec::new(), out: Vec::new() };
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

/// Writes the model's weights and syncs the file.
///
/// # Errors
/// [`ModelError::Io`] with the path.
pub fn save(model: &Gpt, path: &Path) -> Result<(), ModelError> {
    write_tensors(named_parameters(model), path)
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

/// Writes named f32 tensors as a SafeTensors file and syncs it.
///
/// # Errors
/// [`ModelError::Io`] with the path.
pub fn write_tensors(tensors: impl IntoIterator<Item = (String, HostTensor)>, path: &Path) -> Result<(), ModelError> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, tensor)| (name, tensor.shape, tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).expect("four bytes a value");
        (name.as_str(), view)
    });
    // A single entry: the order of several would differ from file to file.
    let metadata = HashMap::from([(VERSION_KEY.to_owned(), VERSION.to_owned())]);
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
    let bytes = std::fs::read(path).map_err(|source| ModelError::Io { doing: "read", path: path.to_owned(), source })?;
    let format = |message: String| ModelError::Format { path: path.to_owned(), message };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| format(error.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| format(error.to_string()))?;
    match header.metadata().as_ref().and_then(|metadata| metadata.get(VERSION_KEY)) {
        Some(found) if found == VERSION => {}
        found => return Err(ModelError::Version { path: path.to_owned(), found: found.cloned(), expected: VERSION }),
    }
    let mut out = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            let (found, expected) = (format!("of type {:?}", view.dtype()), "F32".into());
            return Err(ModelError::Tensor { path: path.to_owned(), name: name.to_owned(), found, expected });
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        out.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(out)
}
