package ring

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/scripts/abicheck"
)

func TestUAPI(t *testing.T) {
	abicheck.Check(t, abicheck.Compiled{
		Structs: []any{
			SQE{},
			CQE{},
			ioSqringOffsets{},
			ioCqringOffsets{},
			ioUringParams{},
			ioUringProbeOp{},
			ioUringProbe{},
			ioUringRsrcRegister{},
			ioUringRsrcUpdate{},
			ioUringRsrcUpdate2{},
			ioUringFilesUpdate{},
			ioUringBuf{},
			ioUringBufReg{},
			ioUringGeteventsArg{},
			ioUringRestriction{},
			ioUringTaskRestriction{},
			kernelTimespec{},
		},
	})
}
