import os
import shutil
import sys
from pathlib import Path

sys.path[:0]=[os.getcwd(), os.getcwd()+"/tests"]
import nibabel as nib
import numpy as np

D=Path(os.environ["CONTRACT_DATA"]); D.mkdir(parents=True, exist_ok=True)
from common.cohorts.datalist import load_datalist, write_datalist
from common.cohorts.phantom.cohort import generate

ph=generate(D/"phantom9", subjects=9)
if not (D/"coarse").exists():
    c=shutil.copytree(ph, D/"coarse")
    for p in c.rglob("*.nii.gz"): nib.save(nib.load(p).slicer[::2,::2,::2], p)
parts=load_datalist(D/"coarse"/"datalist.json", D/"coarse")
write_datalist({"training": parts["training"][1:2],"validation":[],"test":[]}, D/"one.json")
case=Path(parts["training"][1]["image"][0]).parent
if not (D/"coarse_one").exists(): shutil.copytree(ph/case.name if (ph/case.name).exists() else case, D/"coarse_one"/case.name)
G=Path(os.environ["OPEN_GLIOMA"], "BraTS2021_01479")
for n in ("glioma_one",):
    (D/n).mkdir(exist_ok=True)
    if not (D/n/G.name).exists(): shutil.copytree(G, D/n/G.name, ignore=shutil.ignore_patterns("*seg*"))
from heads import with_heads

imgs={k: nib.load(G/f"{G.name}_{f}.nii.gz") for k,f in (("t1","t1"),("t1c","t1ce"),("t2","t2"),("flair","flair"))}
S=D/"study_four"; S.mkdir(exist_ok=True)
for k,i in imgs.items(): nib.save(i, S/f"p_{k}.nii.gz")
S=D/"study_flair"; S.mkdir(exist_ok=True); nib.save(imgs["flair"], S/"p_flair.nii.gz")
S=D/"study_heads"; S.mkdir(exist_ok=True)
arr=with_heads({k: np.asarray(i.dataobj) for k,i in imgs.items()}, 1.0)
for k,a in arr.items():
    aff=imgs[k].affine.copy()
    if k=="flair": aff[:3,3]+=[4,-3,2]
    nib.save(nib.Nifti1Image(a.astype(np.int16), aff), S/f"p_{k}.nii.gz")
print(case)
