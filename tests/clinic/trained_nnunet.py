"""A tiny nnU-Net, trained by ``nnunetv2`` itself: a program, since nnU-Net's folders are a process's environment."""

import json
import os
import sys
from pathlib import Path

import torch


def train(folder: Path, dataset: str, number: int) -> None:
    """Plan, preprocess and train one epoch of two iterations; then predict the test cases as nnU-Net does."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.run.run_training import get_trainer_from_args

    extract_fingerprints([number], num_processes=1)
    name = plan_experiments([number])
    path = folder / "preprocessed" / dataset / f"{name}.json"
    plans = json.loads(path.read_text())
    full = plans["configurations"]["3d_fullres"]
    full |= {"patch_size": [32, 32, 32], "batch_size": 2}
    full["architecture"]["arch_kwargs"] |= {
        "n_stages": 3, "features_per_stage": [4, 8, 16], "kernel_sizes": [[3] * 3] * 3,
        "strides": [[1] * 3, [2] * 3, [2] * 3], "n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1],
    }  # fmt: skip
    path.write_text(json.dumps(plans))
    preprocess([number], name, ("3d_fullres",), (1,))
    torch.manual_seed(0)
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # batches are made in this process; the planner cannot do with 0
    trainer = get_trainer_from_args(dataset, "3d_fullres", "all", plans_identifier=name, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
    trainer.run_training()
    trainer.inference_allowed_mirroring_axes = (1,)  # two predictions for each window; all three axes take eight
    trainer.save_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, ("all",))
    (folder / "predicted").mkdir()
    images = folder / "raw" / dataset / "imagesTs"
    predictor.predict_from_files_sequential(str(images), str(folder / "predicted"), True)
    print(trainer.output_folder_base)


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
