package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The driver passes csi-sanity, the test of the interface's authors, with file systems and
// with block volumes.
func TestKernelSanity(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	for _, access := range []string{"mount", "block"} {
		config := sanity.NewTestConfig()
		config.Address = "unix://" + b.socket
		config.TargetPath = filepath.Join(b.dir, access+"-target")
		config.StagingPath = filepath.Join(b.dir, access+"-staging")
		config.TestVolumeSize = 32 << 20
		config.TestVolumeExpandSize = 64 << 20
		config.TestVolumeAccessType = access
		sc := sanity.GinkgoTest(&config)
		defer sc.Finalize()
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	var report ginkgo.Report
	passed := 0
	ginkgo.ReportAfterSuite("keep the report", func(r ginkgo.Report) { report = r })
	suite, reporter := ginkgo.GinkgoConfiguration()
	if !b.growsInUse() {
		// csi-sanity knows no growth that has to wait until the volume is not in use.
		// TestKernelGrowth checks it.
		suite.SkipStrings = []string{growthInUse}
	}
	reporter.Succinct = true
	if !ginkgo.RunSpecs(t, "csi-sanity", suite, reporter) {
		t.Error("the suite failed")
	}
	for i := range report.SpecReports {
		switch spec := &report.SpecReports[i]; {
		case len(suite.SkipStrings) > 0 && strings.Contains(spec.FullText(), growthInUse):
			if spec.State != types.SpecStateSkipped {
				t.Errorf("%s: state %v", spec.FullText(), spec.State)
			}
		case spec.State == types.SpecStateSkipped && !slices.Contains(notOffered, spec.FailureMessage()):
			t.Errorf("%s: skipped: %s", spec.FullText(), spec.FailureMessage())
		case spec.State == types.SpecStatePassed && spec.LeafNodeType == types.NodeTypeIt:
			passed++
		}
	}
	t.Logf("%d tests of the suite passed", passed)
	if passed == 0 {
		t.Error("the suite had no test")
	}
	b.isClean()
}

// growthInUse is the name of the test of growth in use.
const growthInUse = "should work if node-expand is called after node-publish"

// notOffered are the reasons for which the suite skips tests of services and capabilities
// that the driver does not offer.
var notOffered = []string{
	"Controller Publish, UnpublishVolume not supported",
	"ControllerPublishVolume not supported",
	"ControllerPublishVolume.readonly field not supported",
	"ControllerUnpublishVolume not supported",
	"ControllerExpandVolume not supported",
	"ControllerModifyVolume not supported",
	"Modify Volume not supported",
	"Modify volume not supported",
	"ControllerGetVolumeHealth not supported",
	"ControllerListVolumeHealth not supported",
	"NodeGetVolumeHealth not supported",
	"NodeGetStorageHealth not supported",
	"GetSnapshot not supported",
	"GroupControllerService not supported",
	"VolumeGroupSnapshots not supported",
	"SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
}
