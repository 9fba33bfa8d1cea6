package driver

import (
	"context"
	"slices"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// NodeGetVolumeStats implements csi.NodeServer. It does not wait for other calls.
func (d *Driver) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("volume_id: it is empty")
	case req.GetVolumePath() == "":
		return nil, invalid("volume_path: it is empty")
	}
	unlock, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.volume(d.recordID(req.GetVolumeId()))
	if err != nil {
		return nil, err
	}
	path := req.GetVolumePath()
	if !isAt(v, path) {
		return nil, status.Errorf(codes.NotFound, "volume_path: volume %q is not at %q", v.ID, path)
	}
	if v.Stage != nil && v.Stage.Block {
		return d.blockStats(v)
	}
	t, err := mounts.Read()
	if err != nil {
		return nil, failure(err)
	}
	if t.At(path) == nil { // the numbers would be those of the node's file system
		return nil, status.Errorf(codes.NotFound, "volume_path: nothing is mounted at %q", path)
	}
	return fileSystemStats(path)
}

// isAt reports whether a volume is staged or published at a path.
func isAt(v *pool.Volume, path string) bool {
	return v.Stage != nil && v.Stage.Path == path ||
		slices.ContainsFunc(v.Publications, func(p pool.Publication) bool { return p.Target == path })
}

// blockStats reports the size of a volume, and what its image takes in the pool.
func (d *Driver) blockStats(v *pool.Volume) (*csi.NodeGetVolumeStatsResponse, error) {
	used, err := d.pool.Allocated(v)
	if err != nil {
		return nil, failure(err)
	}
	used = min(used, v.Size)
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: v.Size, Used: used, Available: v.Size - used},
	}}, nil
}

func fileSystemStats(path string) (*csi.NodeGetVolumeStatsResponse, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return nil, failure(err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit: csi.VolumeUsage_BYTES, Total: int64(st.Blocks) * st.Frsize,
			Used: int64(st.Blocks-st.Bfree) * st.Frsize, Available: int64(st.Bavail) * st.Frsize,
		},
		{Unit: csi.VolumeUsage_INODES, Total: int64(st.Files), Used: int64(st.Files - st.Ffree), Available: int64(st.Ffree)},
	}}, nil
}
