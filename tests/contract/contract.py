"""contract.py TREE OUT [parts]: record what the house must keep equal. To be deleted with issue "house".

DATA is made by data.py. Run in TREE with PYTHONPATH=TREE:TREE/tests; tag.json was recorded at the tag heart-trainings (60c6f61)
on a Xeon with AMX, one thread, so compare on the same kind of processor or record the tag again.
"""
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

tree, out = Path(sys.argv[1]), Path(sys.argv[2]); parts = sys.argv[3].split(",") if len(sys.argv) > 3 else ["learners","keys","logits","eval","predict"]
out.mkdir(parents=True, exist_ok=True)
DATA = Path(os.environ["CONTRACT_DATA"])
import numpy as np
import torch

torch.set_num_threads(1)
res = json.loads((out/"contract.json").read_text()) if (out/"contract.json").exists() else {}
def save(): (out/"contract.json").write_text(json.dumps(res, indent=1))
def h(t): return hashlib.sha256(np.ascontiguousarray(t.detach().as_subclass(torch.Tensor).float().cpu().numpy()).tobytes()).hexdigest()[:16]
sys.path[:0] = [str(tree), str(tree/"tests")]
SUBS = [s for n in range(1,5) for s in itertools.combinations(range(4), n)]
if "learners" in parts:
    from bundles.running import Bundle
    from ignite.engine import Events
    from monai.bundle import ConfigWorkflow

    from bundles import test_learning as T
    for name,(folder,configs,settings) in T.LEARNERS.items():
        if name in res.get("learners",{}): continue
        bundle = Bundle(folder); tmp = out/"tmp"; shutil.rmtree(tmp, ignore_errors=True); tmp.mkdir()
        s = {"crop": T.CROP, **T.SETTINGS, **settings}
        for k in ("epochs","pretrain_epochs","teacher_epochs"):
            if k in s: s[k] = 5
        try:
            w = ConfigWorkflow(config_file=[str(bundle.folder/"configs"/c) for c in ("train.json",*configs)], logging_file=False, bundle_root=str(bundle.folder),
                **{**s, **T.fixed_crop(bundle, s["crop"])}, dataset_dir=str(DATA/"coarse"), datalist=str(DATA/"one.json"), output_dir=str(tmp))
            w.initialize(); got = {}
            for stage in ("pretrainer","teach","train"):
                try: tr = w.parser.get_parsed_content(f"{stage}#trainer")
                except Exception: continue
                losses = got.setdefault(stage, [])
                tr.add_event_handler(Events.ITERATION_COMPLETED, lambda e, losses=losses: losses.append(float(e.state.output["loss"])) if len(losses)<5 else None)
            w.run()
            net = w.parser.get_parsed_content("network"); sd = net.state_dict()
            got["keys"] = hashlib.sha256(json.dumps([(k,list(v.shape)) for k,v in sd.items()]).encode()).hexdigest()[:16]
            got["state"] = hashlib.sha256("".join(h(v) for v in sd.values()).encode()).hexdigest()[:16]
            w.finalize()
        except BaseException as e:
            got = {"error": repr(e)[:600]}
        res.setdefault("learners",{})[name] = got; save(); print(name, got, flush=True)
if "logits" in parts:
    from bundles.running import Bundle
    for b in ("m3ae","gss","passion","medmap","mag_ms"):
        for case, configs in (("phantom",("inference.json","recipes/phantom.json")),("glioma",("inference.json",))):
            key=f"{b}/{case}"
            if key in res.get("logits",{}): continue
            try:
                kw = {"dataset_dir": str(DATA/("coarse_one" if case=="phantom" else "glioma_one")), "device":"cpu", "precision":"float32"}
                get = Bundle(b).get(*configs, **kw)
                net = get("network").eval(); image = get("dataset")[0]["image"][None]; inferer = get("inferer")
                subs = SUBS if b in ("m3ae","gss") or case=="phantom" else [(0,),(1,3),(0,1,2,3)]
                got = {}
                for s in subs:
                    x = image.clone(); x[:, [m for m in range(4) if m not in s]] = float("nan")
                    with torch.no_grad(): y = inferer(x, net)
                    got[str(s)] = [h(y), float(y.as_subclass(torch.Tensor).double().mean())]
            except BaseException as e: got = {"error": repr(e)[:600]}
            res.setdefault("logits",{})[key]=got; save(); print(key, list(got.items())[-1], flush=True)
if "keys" in parts:
    r = {}
    for p in sorted(tree.glob("bundles/*/models/*.pt")):
        r[str(p.relative_to(tree))] = hashlib.sha256(json.dumps([(k,h(v)) for k,v in torch.load(p, weights_only=True).items()]).encode()).hexdigest()[:16]
    res["weights"]=r; save()
env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS":"1"}
if "eval" in parts:
    o = out/"eval"; shutil.rmtree(o, ignore_errors=True)
    c = [f"bundles/m3ae/configs/{x}" for x in ("inference.json","evaluate.json","recipes/phantom.json")]
    p = subprocess.run([sys.executable,"-m","monai.bundle","run","--config_file",str(c),"--dataset_dir",str(DATA/"phantom9"),"--output_dir",str(o),"--precision","float32"],cwd=tree,env=env,capture_output=True,text=True)
    print(p.returncode, p.stdout[-500:], p.stderr[-1500:])
    res["eval"] = {str(f.relative_to(o)): hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in sorted(o.rglob("*.csv"))}; save()
if "predict" in parts:
    for name in ("four","heads","flair"):
        o = out/f"predict_{name}"; shutil.rmtree(o, ignore_errors=True)
        p = subprocess.run([sys.executable,"-m","tools","predict",str(DATA/f"study_{name}"),str(o),"m3ae","--device","cpu"],cwd=tree,env=env,capture_output=True,text=True)
        print(name, p.returncode, p.stdout[-1500:], p.stderr[-1500:])
        import nibabel as nib
        r = {}
        for f in sorted(o.rglob("*.nii.gz")):
            a = np.asarray(nib.load(f).dataobj); r[f.name] = [hashlib.sha256(a.tobytes()).hexdigest()[:16], {int(v): int((a==v).sum()) for v in np.unique(a)}]
        res.setdefault("predict",{})[name]=r; save()
