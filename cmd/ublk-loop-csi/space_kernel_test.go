package main

import (
	"fmt"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// startWith starts the driver with a pool that has space for n bytes.
func (b *bed) startWith(n int64) {
	b.Helper()
	var st unix.Statfs_t
	b.ok("statfs", unix.Statfs(b.dir, &st))
	b.start("--reserve", fmt.Sprint(int64(st.Bavail)*st.Bsize-n)) // on tmpfs
}

// A volume whose blocks are all in use grows if the pool has space for the rest.
func TestKernelGrowthOfFullVolume(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.startWith(80 * mib)
	for _, provisioning := range []string{"thin", "thick"} {
		v := b.create(provisioning, 48*mib, blockAccess(oneWriter), func(req *csi.CreateVolumeRequest) {
			req.Parameters = map[string]string{"provisioning": provisioning}
		})
		data := content(3, 48*mib)
		b.put(v.use("a"), data)
		b.ok("grow", v.grow("a", 64*mib))
		b.has(v.file("a"), data)
		b.refused("grow beyond the pool", v.grow("a", 96*mib), codes.ResourceExhausted, "capacity_range")
		v.leave("a")
		v.remove()
	}
	b.isClean()
}
