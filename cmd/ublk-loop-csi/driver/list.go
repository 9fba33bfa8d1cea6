package driver

import (
	"context"
	"sort"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// ListVolumes implements csi.ControllerServer.
func (d *Driver) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	unlock, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, _, err := d.pool.Volumes.All() // Reconcile has reported damaged records
	if err != nil {
		return nil, failure(err)
	}
	var list []*pool.Volume
	for _, v := range all {
		if v.State == pool.Ready && !v.Settings.Ephemeral {
			list = append(list, v)
		}
	}
	from, to, next, err := page(pool.Volumes, len(list), func(i int) string { return list[i].ID }, req.GetStartingToken(), req.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	reply := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range list[from:to] {
		reply.Entries = append(reply.Entries, &csi.ListVolumesResponse_Entry{Volume: d.described(v)})
	}
	return reply, nil
}

// ListSnapshots implements csi.ControllerServer.
func (d *Driver) ListSnapshots(ctx context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	unlock, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, _, err := d.pool.Snapshots.All()
	if err != nil {
		return nil, failure(err)
	}
	var list []*pool.Snapshot
	for _, s := range all {
		if s.State == pool.Ready && isOrAny(req.GetSnapshotId(), s.ID) && isOrAny(req.GetSourceVolumeId(), s.Source) {
			list = append(list, s)
		}
	}
	from, to, next, err := page(pool.Snapshots, len(list), func(i int) string { return list[i].ID }, req.GetStartingToken(), req.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	reply := &csi.ListSnapshotsResponse{NextToken: next}
	for _, s := range list[from:to] {
		reply.Entries = append(reply.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: describedSnapshot(s)})
	}
	return reply, nil
}

func isOrAny(want, is string) bool { return want == "" || want == is }

// page returns the part of a sorted list that a request asks for, and the token of the next
// page. A token is the id that the page begins with, which may be deleted meanwhile.
func page(kind pool.Kind, n int, id func(int) string, token string, most int32) (from, to int, next string, err error) {
	if most < 0 {
		return 0, 0, "", invalid("max_entries: %d is negative", most)
	}
	if token != "" {
		if !pool.IsID(kind, token) {
			return 0, 0, "", status.Errorf(codes.Aborted, "starting_token: %q is not a token", token)
		}
		from = sort.Search(n, func(i int) bool { return id(i) >= token })
	}
	to = n
	if most > 0 && n-from > int(most) {
		to = from + int(most)
		next = id(to)
	}
	return from, to, next, nil
}
