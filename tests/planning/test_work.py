"""The work of a compiled program's instructions: whose they are, FLOPs, bytes, floors."""

import pytest

from mq_jax.planning.hlo import parse
from mq_jax.planning.work import GROUPS, NAMELESS, PRODUCTS, REST, floor_seconds, group_of, works

# A product in a fusion, in a loop of three turns; a fusion of elementwise work; a copy of XLA's.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused_product (a: f32[8,4], b: f32[4,2]) -> f32[8,2] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[4,2]{1,0} parameter(1)
  %dot.1 = f32[8,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %negate.1 = f32[8,2]{1,0} negate(%dot.1), metadata={op_name="jit(step)/optimizer/neg"}
}

%body (state: f32[8,4]) -> f32[8,4] {
  %state = f32[8,4]{1,0} parameter(0)
  %constant.1 = f32[4,2]{1,0} constant({...})
  %fusion.1 = f32[8,2]{1,0} fusion(%state, %constant.1), kind=kOutput, calls=%fused_product
  ROOT %copy.1 = f32[8,4]{1,0} copy(%state)
}

%condition (state.1: f32[8,4]) -> pred[] {
  %state.1 = f32[8,4]{1,0} parameter(0)
  ROOT %constant.2 = pred[] constant(true)
}

%fused_sum (c: f32[8,4]) -> f32[8,4] {
  %c = f32[8,4]{1,0} parameter(0)
  ROOT %add.1 = f32[8,4]{1,0} add(%c, %c)
}

%left (d: f32[8,4]) -> f32[8,4] {
  %d = f32[8,4]{1,0} parameter(0)
  ROOT %copy.3 = f32[8,4]{1,0} copy(%d)
}

%right (e: f32[8,4]) -> f32[8,4] {
  %e = f32[8,4]{1,0} parameter(0)
  ROOT %exponential.1 = f32[8,4]{1,0} exponential(%e)
}

ENTRY %main (x: f32[8,4], index: s32[]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0), metadata={op_name="state['BatchNorm_0']"}
  %index = s32[] parameter(1)
  %while.1 = f32[8,4]{1,0} while(%x), condition=%condition, body=%body, metadata={op_name="jit(step)/jvp(quantizer)/lookup/while"}, backend_config={"known_trip_count":{"n":"3"}}
  %fusion.2 = f32[8,4]{1,0} fusion(%while.1), kind=kLoop, calls=%fused_sum, metadata={op_name="jit(step)/jvp(AutoEncoder.encode)/encoder/BatchNorm_0/add"}
  %conditional.1 = f32[8,4]{1,0} conditional(%index, %fusion.2, %fusion.2), branch_computations={%left, %right}, metadata={op_name="jit(step)/cond"}
  ROOT %copy.2 = f32[8,4]{1,0} copy(%conditional.1)
}
"""  # noqa: E501


def test_work_is_that_of_all_inside_and_bytes_are_of_operands_and_results():
    found = works(parse(PROGRAM))
    # Two for each of 8 x 2 x 4 products, one for each of 8 x 2 signs.
    product = 2 * 8 * 2 * 4 + 8 * 2
    assert found["fusion.1"][:3] == (PRODUCTS, product, 4 * (32 + 8 + 16))
    assert found["while.1"][:3] == (PRODUCTS, 3 * product, 4 * 64)
    assert found["fusion.2"][:3] == ("normalization", 32, 4 * 64)
    # An operand that is taken twice is read once; only one branch runs, both are inside.
    assert found["conditional.1"].bytes == 4 + 4 * 64
    assert {"copy.3", "exponential.1"} <= found["conditional.1"].inside
    assert {"fusion.1", "copy.1"} <= found["while.1"].inside
    # Of a fusion's own instructions nothing is told: they do not run by themselves.
    assert "dot.1" not in found and "add.1" not in found


def test_what_xla_adds_has_no_name_but_that_of_its_loop():
    found = works(parse(PROGRAM))
    assert found["copy.2"].group == NAMELESS and found["copy.2"].bytes == 4 * 64
    assert found["copy.1"].group == "codebook and lookup"
    assert found["copy.3"].group == found["exponential.1"].group == REST


@pytest.mark.parametrize(
    "path, group",
    [
        ("jit(step)/transpose(jvp(AutoEncoder.encode))/encoder/Conv_2/winograd/stack", 0),
        ("jit(step)/jvp(AutoEncoder.encode)/encoder/ResidualBlock_0/BatchNorm_0/sub", 1),
        ("jit(step)/jvp(AutoEncoder.encode)/encoder/LayerNorm_0/sub", 1),
        ("jit(step)/optimizer/jit(_where)/select_n", 2),
        ("jit(step)/jvp(optimizer)/mul", 2),
        ("jit(step)/transpose(jvp(quantizer))/Codebook/net_in/reduce_sum", 3),
        ("jit(step)/jvp(AutoEncoder.features)/decoder.features/ResidualBlock_5/jit(relu)/max", 4),
        ("jit(step)/jvp(Discriminator)/add", 4),
        ("jit(step)/reduce_sum", 5),
        ("", 6),
        # The innermost that tells.
        ("jit(step)/add\njit(step)/jvp(quantizer)/lookup/while", 3),
    ],
)
def test_a_group_is_told_by_the_names_of_scopes_and_modules(path, group):
    assert group_of(path) == GROUPS[1:][group]


def test_a_floor_is_the_longer_of_arithmetic_and_bytes():
    work = works(parse(PROGRAM))["fusion.2"]
    assert floor_seconds(work, flop_rate=32, byte_rate=256) == 1
    assert floor_seconds(work, flop_rate=16, byte_rate=256) == 2
    assert floor_seconds(work, flop_rate=32, byte_rate=64) == 4
