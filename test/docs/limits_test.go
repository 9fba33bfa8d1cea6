package docs

import (
	"regexp"
	"strings"
	"testing"
)

// limits has constants and versions of the source, and what documents say of them.
var limits = []struct{ file, constant, document, statement string }{
	{"go.mod", "go 1.26.0", "README.md", "needs Go 1.26, git and make"},
	{"cmd/ublk-loop-csi/go.mod", "container-storage-interface/spec v1.13.0", "docs/kubernetes.md", "(CSI 1.13)"},
	{"cmd/ublk-loop-csi/go.mod", "k8s.io/api v0.37.2", "docs/kubernetes.md", "the types of Kubernetes 1.37"},
	{"cmd/ublk-loop-snapshotter/go.mod", "containerd/v2 v2.2.9", "docs/containers.md", "(`core/snapshots/testsuite`, 2.2.9)"},
	{"cmd/ublk-loop-snapshotter/go.mod", "containerd/v2 v2.2.9", "docs/containers.md", "from the source of containerd 2.2.9"},
	{"scripts/bench-snapshotters.sh", "version=v2.4.2", "docs/containers.md", "runs that of containerd 2.4.2"},
	{"scripts/bench/check.go", "return 0.9 * r.Ratio", "docs/performance.md", "takes 10 % longer"},
	{"scripts/bench/check.go", "return 0.97 * r.Ratio", "docs/performance.md", "drops by more than 3 %"},
	{"scripts/vm-engines.sh", "crictl=v1.34.0", "docs/containers.md", "`crictl` 1.34.0"},
	{"scripts/vm-suites.sh", "runc_version=v1.5.2", "docs/containers.md", "runc 1.5.2's own integration tests"},
	{"scripts/vm-suites.sh", "runtime_tools_version=v0.9.0", "docs/containers.md", "OCI runtime-tools 0.9"},
	{"cmd/ublk-loop/add.go", "maxQueues = 4096", "docs/ublk-loop.8", "Number of queues, 1 to 4096"},
	{"cmd/ublk-loop/add.go", "maxDepth = 4096", "docs/ublk-loop.8", "requests in flight per queue: 1 to 4096."},
	{"cmd/ublk-loop/add.go", "maxIO = 32 << 20", "docs/ublk-loop.8", "whole pages, up to 32M."},
	{"cmd/ublk-loop/add.go", `autoclearDefault = "10s"`, "docs/ublk-loop.8", "at least for TIME (10s by default)"},
	{"cmd/ublk-loop/add.go", `autoclearDefault = "10s"`, "docs/serve.md", "the server holds the device for 10 seconds"},
	{"cmd/ublk-loop/devicearguments.go", "maxID = 1<<20 - 1", "docs/ublk-loop.8", "0 to 1048575."},
	{"cmd/ublk-loop/list.go", "statsPatience = 2 * time.Second", "docs/cow.md", "`list` asks the server, for at most 2 seconds"},
	{"cmd/ublk-loop/app.go", "interruptPatience = 5 * time.Second", "docs/reliability.md", "which it finishes, unless this takes 5 s"},
	{"cmd/ublk-loop/verity.go", "maxListed = 10", "docs/verity.md", "`verify` prints the first 10 wrong blocks"},
	{"cmd/ublk-loop-csi/driver/keys.go", "keyPause = time.Second", "docs/kubernetes.md", "looks once a second for devices that wait"},
	{"cmd/ublk-loop-csi/driver/merger.go", "mergePause = 5 * time.Second", "docs/kubernetes.md", "tries again after five seconds"},
	{"cmd/ublk-loop-csi/driver/merger.go", "longestMergePause = 10 * time.Minute", "docs/kubernetes.md", "pauses that grow to ten minutes"},
	{"cmd/ublk-loop-csi/driver/server.go", "look: 30 * time.Second, change: 2 * time.Minute", "docs/kubernetes.md", "a time limit, 30 s for lists and 2 min for changes"},
	{"cmd/ublk-loop-csi/mounts/filesystem.go", "return 300 << 20", "docs/kubernetes.md", "A volume with xfs has 300 MiB at least"},
	{"cmd/ublk-loop-csi/pool/layer.go", "MaxChain = 8", "docs/kubernetes.md", "A volume has at most eight layers"},
	{"cmd/ublk-loop-snapshotter/snapshotter/layers.go", "maxStores = 8", "docs/containers.md", "A device has at most eight stores above its image"},
	{"cmd/ublk-loop-snapshotter/snapshotter/snapshotter.go", "minSize = 8 << 20", "docs/containers.md", "less than 8 MiB, and any size of an image file"},
	{"cmd/ublk-loop-snapshotter/snapshotter/stores.go", "storeChunk = 64 << 10", "docs/containers.md", "in chunks of 64 KiB"},
	{"internal/apart/lastwords.go", "maxWords = 64 << 10", "docs/design.md", "a pipe that takes 64 KiB"},
	{"internal/apart/lastwords.go", "maxReason = 200", "docs/design.md", "the first line, 200 characters at most"},
	{"internal/apart/message.go", "maxReport = 32 << 10", "docs/design.md", "in at most 32 KiB"},
	{"internal/apart/message.go", "sendTimeout = 10 * time.Second", "docs/reliability.md", "If it does not even read for 10 s"},
	{"internal/apart/publisher.go", "publishPause = 100 * time.Millisecond", "docs/reliability.md", "at most ten texts a second"},
	{"internal/apart/device.go", "startPatience = time.Hour", "docs/reliability.md", "or after an hour if the process answers other requests"},
	{"internal/confine/collector.go", "garbageLimit = 2 << 20", "docs/design.md", "when its clients have produced 2 MiB"},
	{"internal/confine/collector.go", "garbagePause = 2 * time.Second", "docs/design.md", "quiet for two seconds"},
	{"internal/confine/memory.go", "gcLimit = 128 << 20", "docs/design.md", "Go collects no garbage below 128 MiB"},
	{"internal/confine/inherited.go", "fileLimit = 1 << 20", "docs/serve.md", "2²⁰ open files"},
	{"internal/confine/inherited.go", "stackBytes = 8 << 20", "docs/serve.md", "a stack of 8 MiB"},
	{"internal/control/body.go", "maxBody = 4 << 20", "docs/serve.md", "the body is larger than 4 MiB"},
	{"internal/control/listener.go", "maxConns = 4096", "docs/serve.md", "The server accepts at most 4096 connections"},
	{"internal/control/server.go", "headerTimeout = 10 * time.Second", "docs/serve.md", "must each complete within 10 seconds"},
	{"internal/daemon/apart.go", "quietAfter = 2 * time.Second", "docs/design.md", "and two seconds later those that the end of the start has used again"},
	{"internal/daemon/ending.go", "insistTime = 10 * time.Second", "docs/ublk-loop.8", "unless it is the second within 10 seconds"},
	{"internal/daemon/recoverall.go", "recoverPatience = 10 * time.Second", "docs/reliability.md", "delays the start for at most 10 s"},
	{"internal/daemon/recoverall.go", "longestRetry = 30 * time.Second", "docs/reliability.md", "tries again after 1 s to 30 s"},
	{"internal/daemon/upgrade.go", "freezeTimeout = 5 * time.Second", "docs/serve.md", "takes longer than five seconds"},
	{"internal/daemon/upgrade.go", "holdTimeout = 3 * time.Second", "docs/reliability.md", "refused after 3 s, with the device"},
	{"internal/gpt/gpt.go", "maxEntries = 1024", "docs/verity.md", "at most 1024 entries"},
	{"internal/oci/hooks.go", "configLimit = 64 << 20", "docs/reliability.md", "is larger than 64 MiB"},
	{"internal/oci/settings.go", "AttachTimeout: 10 * time.Second", "docs/containers.md", `attach_timeout = "10s"`},
	{"internal/oci/settings.go", "SweepAfter: time.Minute", "docs/containers.md", `sweep_after = "1m"`},
	{"internal/oci/tmpfs.go", "bytesPerInode = 4096", "docs/containers.md", "one file for each 4096 bytes"},
	{"internal/oci/tmpfs.go", "spareInodes = 1024", "docs/containers.md", "and 1024 more"},
	{"internal/scrapers/scrapers.go", "Max = 16", "docs/kubernetes.md", "It has 16 clients at most"},
	{"internal/systemd/scope.go", "stopTimeout = 10 * time.Minute", "docs/design.md", "At a shutdown the server has ten minutes"},
	{"internal/udev/look.go", "lookTime = 3 * time.Second", "docs/design.md", "get three seconds, during which `del` waits"},
	{"internal/udev/node.go", "openTimeout = 10 * time.Second", "docs/reliability.md", "it first waits 10 seconds for a program that makes nodes"},
	{"internal/verityfile/partitions.go", "maxSignaturePartition = 4 << 20", "docs/verity.md", "verity signature, up to 4 MiB"},
	{"internal/verityfile/partitions.go", "maxSignatures = 8", "docs/verity.md", "and 8 signatures are read"},
	{"internal/verityfile/signature.go", "maxElements = 10000", "docs/verity.md", "more than 10,000 elements of DER"},
	{"internal/verityfile/signature.go", "maxDepth = 32", "docs/verity.md", "more than 32 within each other"},
	{"loop/apart.go", "savePatience = 10 * time.Second", "docs/design.md", "10 seconds longer than the requests may take"},
	{"loop/apart.go", "statsPatience = time.Second", "docs/metrics.md", "has a second to answer"},
	{"loop/autoclear.go", "autoclearInterval = 500 * time.Millisecond", "docs/serve.md", "lengthens the interval up to half a second"},
	{"loop/cowfile/create.go", "DefaultChunkSize = 64 << 10", "docs/cow.md", "by default 64K"},
	{"loop/cowfile/image.go", "samples = 16", "docs/cow.md", "in one of 16 samples of 64 KiB"},
	{"loop/cowfile/merge.go", "maxRun = 64 << 20", "docs/cow.md", "copies up to 64 MiB between two flushes"},
	{"loop/detach.go", "serverTimeout = 20 * time.Second", "docs/reliability.md", "`del` kills the server after 20 s"},
	{"loop/fork.go", "forkPatience = 10 * time.Second", "docs/cow.md", "refused after 10 seconds"},
	{"loop/inuse.go", "stallTime = 10 * time.Second", "docs/reliability.md", "the pages that are left after 10 s are lost"},
	{"loop/events.go", "slowAfter = 10 * time.Second", "docs/reliability.md", "after 10 s the log names the command that hangs"},
	{"loop/recover.go", "backingTimeout = 20 * time.Second", "docs/reliability.md", "after 20 s it gives up and can be repeated"},
	{"loop/server.go", "opts.Patience = time.Minute", "docs/serve.md", "as long as the device answers requests, and for one minute more"},
	{"loop/serving/pool.go", "busyThreads = 16", "docs/serve.md", "the first 16 devices of a disk or file system have threads of their own"},
	{"loop/serving/request.go", "AnswerPatience = time.Minute", "docs/design.md", "waits for an answer for at most a minute"},
	{"loop/internal/backing/discardprobe.go", "nearestHole = 1 << 30", "docs/limits.md", "at least 1 GiB before the largest offset"},
	{"loop/internal/backing/requestsizes.go", "maxIOBytesLimit = 32 << 20", "docs/limits.md", "at most 32 MiB"},
	{"loop/internal/backing/requestsizes.go", "copyMaxIOBytes = 256 << 10", "docs/limits.md", "at most 256 KiB in copy mode"},
	{"loop/internal/backing/sectorsize.go", "maxSectorSize = 4096", "docs/limits.md", "logical blocks above 4096 bytes"},
	{"loop/internal/basemark/basemark.go", "maxStores = 200", "docs/cow.md", "UUIDs of up to 200 stores"},
	{"loop/internal/cow/store.go", "maxUnsaved = 512", "docs/cow.md", "at 256 records that are not saved"}, // half of them
	{"loop/internal/stack/buffers.go", "ownCopyBytes = 1 << 20", "docs/cow.md", "A thread has 1 MiB of buffers"},
	{"loop/internal/stack/buffers.go", "sharedCopyBytes = 256 << 10", "docs/cow.md", "256 KiB if it serves several queues"},
	{"loop/internal/stack/copy.go", "maxGap = 16 << 10", "docs/cow.md", "A first write of at most 16 KiB is one read"},
	{"loop/internal/stack/findings.go", "maxReports = 100", "docs/verity.md", "the first 100 are in the log"},
	{"loop/internal/stack/group.go", "maxGroup = 16", "docs/tables.md", "of up to 16 writes and 256 KiB"},
	{"loop/internal/stack/group.go", "maxGroupBytes = 256 << 10", "docs/cow.md", "one write of the store, of up to 256 KiB"},
	{"loop/internal/stack/grow.go", "maxForks = 32", "docs/cow.md", "at most 32 forks"},
	{"loop/internal/stack/hashahead.go", "aheadBytes = 64 << 10", "docs/verity.md", "up to 64 KiB, if it continues"},
	{"loop/internal/stack/hashread.go", "hashSlots = 8", "docs/verity.md", "A queue has 8 such operations in flight"},
	{"loop/internal/stack/merge.go", "runBytes = 4 << 20", "docs/cow.md", "up to 4 MiB of chunks"},
	{"loop/internal/stack/merge.go", "lastBytes uint64 = 8 << 20", "docs/cow.md", "when at most 8 MiB are left"},
	{"loop/internal/stack/merge.go", "reserveBytes = 64 << 20", "docs/cow.md", "less than 64 MiB of the store is free"},
	{"loop/internal/stack/stack.go", "MaxFiles = 100", "docs/tables.md", "at most 100 files and disks"},
	{"loop/internal/stack/verity.go", "cacheBytes = 4 << 20", "docs/verity.md", "A queue remembers 4 MiB of hash blocks"},
	{"loop/internal/stack/verity.go", "MaxVerity = 64", "docs/tables.md", "more than 64 lines with `verity`"},
	{"test/e2e/memory_kernel_test.go", "idlePSS = 6041 * 13 / 10", "docs/design.md", "limits their memory with zero copy to 7.7 MiB"},
	{"transfer/transfer.go", "MaxKeyBytes = 512", "docs/transfers.md", "1 to 512 bytes"},
	{"transfer/luks/limits.go", "maxArgon2Memory = 4 << 30", "docs/transfers.md", "at most 4 GiB"},
	{"transfer/snapshot/format.go", "checkedForData = 128 << 10", "docs/cow.md", "whose first 128 KiB, header and first area are zero"},
	{"transfer/snapshot/layout.go", "MinChunkSize = 4 << 10", "docs/cow.md", "chunk of less than 4 KiB or more than 1 MiB"},
	{"transfer/snapshot/layout.go", "MaxChunkSize = 1 << 20", "docs/cow.md", "a power of 2 from 4 KiB to 1 MiB"},
	{"transfer/table/crypt.go", "maxCryptOptions = 9", "docs/tables.md", "there are at most 9 options"},
	{"transfer/table/stack.go", "MaxText = 1 << 20", "docs/tables.md", "Limits: 1 MiB of text"},
	{"transfer/table/stack.go", "MaxTables = 256", "docs/tables.md", "256 tables"},
	{"transfer/table/stack.go", "MaxLines = 16384", "docs/tables.md", "16,384 lines"},
	{"transfer/table/stack.go", "MaxDepth = 32", "docs/tables.md", "32 tables from the top to the bottom"},
	{"transfer/verity/params.go", "MaxBlockSize = 512 << 10", "docs/verity.md", "a power of 2 from 512 to 524288"},
	{"transfer/verity/params.go", "MaxSalt = 256", "docs/verity.md", "length of the salt, 0 to 256"},
	{"ublk/account.go", "timeEvery = 128", "docs/metrics.md", "a sample of one in 128"},
	{"ublk/commands.go", "startTimeout = 2 * time.Minute", "docs/design.md", "get 30 seconds, and `START_DEV` two minutes"},
	{"ublk/control.go", "commandTimeout = 30 * time.Second", "docs/kernels.md", "waits only for the driver after 30 seconds"},
	{"ublk/control.go", "hungPatience = time.Second", "docs/design.md", "get `ErrControlHung` after a second"},
	{"ublk/control.go", "lingerTimeout = time.Second", "docs/design.md", "interrupts the command after one second"},
	{"ublk/control.go", "maxHung = 16", "docs/design.md", "up to 16 may hang"},
	{"ublk/control.go", "maxIdle = 4", "docs/design.md", "of which it keeps up to four"},
	{"ublk/options.go", "defaultDepth = 128", "docs/ublk-loop.8", "The default is 128, or 64 without zero copy."},
	{"ublk/options.go", "defaultCopyDepth = 64", "docs/design.md", "with the defaults (64 × 256 KiB)"},
	{"ublk/recover.go", "freeTimeout = 45 * time.Second", "docs/kernels.md", "`recover` waits up to 45 s for it"},
	{"ublk/threads.go", "maxEntries = 4096", "docs/design.md", "at most 4096 entries in its ring"},
	{"ublk/transport.go", "cancelTimeout = 5 * time.Second", "docs/design.md", "If the cancellation has no effect within five seconds"},
}

// A document says of a constant what the source has. If this fails, change the other of the two, too.
func TestLimits(t *testing.T) {
	texts := read(t, isText)
	for path, text := range texts {
		texts[path] = strings.Join(strings.Fields(plain(text)), " ")
	}
	for _, tt := range limits {
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(tt.constant) + `($|\W)`).MatchString(texts[tt.file]) {
			t.Errorf("%s has no %q, of which %s says %q", tt.file, tt.constant, tt.document, tt.statement)
		}
		if !strings.Contains(texts[tt.document], tt.statement) {
			t.Errorf("%s does not say %q, as %s has %q", tt.document, tt.statement, tt.file, tt.constant)
		}
	}
}

// plain returns a text without the escapes of man pages.
func plain(text string) string {
	return strings.NewReplacer(`\fB`, "", `\fI`, "", `\fR`, "", `\-`, "-").Replace(text)
}
