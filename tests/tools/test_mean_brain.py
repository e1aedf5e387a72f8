import numpy as np

from clinic.study.grid import Image
from common.modalities import GLIOMA
from tools.maintenance.mean_brain import mean_brain


def test_the_mean_is_that_of_scaled_volumes_whatever_their_axes():
    voxels = np.zeros((6, 4, 4), np.float32)
    voxels[:2], voxels[2:4] = 50, 100  # the 99th percentile is 100
    case = dict.fromkeys(GLIOMA, Image(voxels, np.eye(4)))
    brighter = dict.fromkeys(GLIOMA, Image(3 * voxels[::-1], np.diag([-1.0, 1, 1, 1])))
    mean = mean_brain([case, brighter])
    assert mean.shape == (3, 2, 2, 4)
    assert np.allclose(mean.header.get_zooms()[:3], 2)
    assert np.array_equal(np.unique(np.asarray(mean.dataobj)[0]), [100])
    assert np.array_equal(np.unique(np.asarray(mean.dataobj)[1]), [200])
    assert not np.asarray(mean.dataobj)[2].any()
