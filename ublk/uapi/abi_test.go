package uapi

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/scripts/abicheck"
)

func TestUAPI(t *testing.T) {
	abicheck.Check(t, abicheck.Compiled{
		Structs: []any{
			CtrlCmd{},
			CtrlDevInfo{},
			IODesc{},
			IOCmd{},
			AutoBufReg{},
			ElemHeader{},
			BatchIO{},
			ShmemBufReg{},
			ParamBasic{},
			ParamDiscard{},
			ParamDevt{},
			ParamZoned{},
			ParamDMAAlign{},
			ParamSegment{},
			ParamIntegrity{},
			Params{},
		},
		Vars: map[string]any{
			"UBLK_U_CMD_GET_QUEUE_AFFINITY":  UBLK_U_CMD_GET_QUEUE_AFFINITY,
			"UBLK_U_CMD_GET_DEV_INFO":        UBLK_U_CMD_GET_DEV_INFO,
			"UBLK_U_CMD_ADD_DEV":             UBLK_U_CMD_ADD_DEV,
			"UBLK_U_CMD_DEL_DEV":             UBLK_U_CMD_DEL_DEV,
			"UBLK_U_CMD_START_DEV":           UBLK_U_CMD_START_DEV,
			"UBLK_U_CMD_STOP_DEV":            UBLK_U_CMD_STOP_DEV,
			"UBLK_U_CMD_SET_PARAMS":          UBLK_U_CMD_SET_PARAMS,
			"UBLK_U_CMD_GET_PARAMS":          UBLK_U_CMD_GET_PARAMS,
			"UBLK_U_CMD_START_USER_RECOVERY": UBLK_U_CMD_START_USER_RECOVERY,
			"UBLK_U_CMD_END_USER_RECOVERY":   UBLK_U_CMD_END_USER_RECOVERY,
			"UBLK_U_CMD_GET_DEV_INFO2":       UBLK_U_CMD_GET_DEV_INFO2,
			"UBLK_U_CMD_GET_FEATURES":        UBLK_U_CMD_GET_FEATURES,
			"UBLK_U_CMD_DEL_DEV_ASYNC":       UBLK_U_CMD_DEL_DEV_ASYNC,
			"UBLK_U_CMD_UPDATE_SIZE":         UBLK_U_CMD_UPDATE_SIZE,
			"UBLK_U_CMD_QUIESCE_DEV":         UBLK_U_CMD_QUIESCE_DEV,
			"UBLK_U_CMD_TRY_STOP_DEV":        UBLK_U_CMD_TRY_STOP_DEV,
			"UBLK_U_CMD_REG_BUF":             UBLK_U_CMD_REG_BUF,
			"UBLK_U_CMD_UNREG_BUF":           UBLK_U_CMD_UNREG_BUF,
			"UBLK_U_IO_FETCH_REQ":            UBLK_U_IO_FETCH_REQ,
			"UBLK_U_IO_COMMIT_AND_FETCH_REQ": UBLK_U_IO_COMMIT_AND_FETCH_REQ,
			"UBLK_U_IO_NEED_GET_DATA":        UBLK_U_IO_NEED_GET_DATA,
			"UBLK_U_IO_REGISTER_IO_BUF":      UBLK_U_IO_REGISTER_IO_BUF,
			"UBLK_U_IO_UNREGISTER_IO_BUF":    UBLK_U_IO_UNREGISTER_IO_BUF,
			"UBLK_U_IO_PREP_IO_CMDS":         UBLK_U_IO_PREP_IO_CMDS,
			"UBLK_U_IO_COMMIT_IO_CMDS":       UBLK_U_IO_COMMIT_IO_CMDS,
			"UBLK_U_IO_FETCH_IO_CMDS":        UBLK_U_IO_FETCH_IO_CMDS,
		},
	})
}
