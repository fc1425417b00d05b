"""The registry of tables and figures: one entry makes one appear in the workflow, the report and what is published.

A new table is a module with `make(results, title) -> Table`, a new figure one with `draw(data, title, paths)`, an entry
here, and its file in `STAGES` of `benchmark/config/code_sources.py`. Imports no library of figures or tables: the
workflow reads it to plan.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol
from benchmark.config.variant_groups import depth_series, highway_pairs, rate_groups, readable_variants, slot_series

SCORES = "1 Which predicts better?"
REACH = "2 How far back does the gradient reach?"
HIGHWAY = "3 What does the highway do?"
COST = "4 What did it cost, and what do others report?"
CLIPS = "5 Look at predictions"
QUESTIONS = (SCORES, REACH, HIGHWAY, COST, CLIPS)
"""What the report is grouped by, in its order."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """A table or a figure."""

    title: str
    made_by: str
    """`module:function` below `benchmark.reporting`; imported when it is made."""
    question: str
    """One of `QUESTIONS`."""
    caption: str
    """How to read it, in reStructuredText that is Markdown as well."""
    applies: Callable[[Protocol], Any] = trains
    """Whether a protocol has it: the result counts as true or false."""
    measured: tuple[str, ...] = ()
    """Columns of a table that differ from time to time: measured, not computed."""

    @property
    def function(self) -> Callable[..., Any]:
        """What makes it: a table from `(ProtocolResults, title)`, a figure from `(FigureData, title, paths)`."""
        module, name = self.made_by.split(":")
        return getattr(import_module(f".{module}", __package__), name)


def load(entries: Mapping[str, Output]) -> None:
    """Import what makes `entries`, so that a wrong entry fails at once, also where a protocol has nothing of it."""
    assert all(callable(one.function) for one in entries.values())


def always(protocol: Protocol) -> bool:
    """Whether networks are trained or not."""
    return True


def readable(protocol: Protocol) -> bool:
    """Whether there are variants few enough for a line or a panel each."""
    return bool(readable_variants(protocol))


def trained_and_readable(protocol: Protocol) -> bool:
    """Whether anything is trained, by variants few enough for a line each."""
    return trains(protocol) and readable(protocol)


def several_frames(protocol: Protocol) -> bool:
    """Whether more than one frame is predicted, so that one is fed back."""
    return protocol.data.horizon > 1


def probed_in_training(protocol: Protocol) -> bool:
    """Whether gradients are measured between the first and the last step, by variants few enough for a line each."""
    return bool(protocol.probe.steps) and readable(protocol)


TABLES = {
    "main": Output(
        title="Scores on the test clips",
        made_by="tables.scores:main_table",
        question=SCORES,
        caption="One row a variant; below, predictions that need no training. Arrows in the heads say which way is"
        " better. A cell is the mean over seeds, and from three seeds on its 95 % t interval over seeds in brackets."
        " Bold marks the best mean *and all that cannot be told from it*; below three seeds nothing is bold and"
        " nothing is ranked. To learn which variants differ, read the paired differences, not two intervals side by"
        " side.",
    ),
    "comparison": Output(
        title="Paired differences to the reference",
        made_by="tables.differences:comparison_table",
        question=SCORES,
        caption="Each row is a variant minus its reference, taken seed by seed on the same clips: the mean difference"
        " with its 95 % t interval. Where the arrow points down, a difference below 0 says that the variant is better."
        " Only rows marked *primary* are tested (exact sign-flip test, Holm over these pairs); all others are"
        " exploratory: effect and interval, no test.",
    ),
    "interactions": Output(
        title="Does a change cost one network more than another?",
        made_by="tables.differences:interactions_table",
        question=SCORES,
        caption="Each row compares two effects, each a variant minus its reference: the first effect less the second,"
        " seed by seed, with its 95 % t interval. Where the arrow of the metric points up, a number below 0 says that"
        " the change costs the first network more. Named in the protocol before anything was run, and tested.",
        applies=lambda protocol: trains(protocol) and protocol.primary.interactions,
    ),
    "per_frame": Output(
        title="MSE by predicted frame",
        made_by="tables.scores:per_frame_table",
        question=SCORES,
        caption="The error of each predicted frame, counted from the first one: squared error summed over the pixels"
        " of a frame, mean over clips and seeds. It grows to the right, since every prediction is fed to the network as"
        " its next input. The CSV beside it in ``tables/`` has all metrics and their intervals.",
        applies=lambda protocol: several_frames(protocol) and trains(protocol),
    ),
    "floor": Output(
        title="What memory is worth",
        made_by="tables.floor:floor_table",
        question=SCORES,
        caption="The least error that any predictor can have on these clips if it sees only the last k context frames,"
        " for each k: a network above a row leaves on the table what k frames allow, and the step from one row to the"
        " next is what one frame further back can buy. The last column counts the variants below a row, whose networks"
        " must use more than k frames. *Digits not known* is the same for a predictor that sees where digits are and"
        " never how they look.",
        applies=lambda protocol: trains(protocol) and protocol.evaluation.floor,
    ),
    "conventions": Output(
        title="Scores under other conventions",
        made_by="tables.scores:conventions_table",
        question=SCORES,
        caption="The same predictions scored as other publications do it. Numbers of two columns may not be compared"
        " with each other; compare a published number only with the column of its own convention. Means over seeds.",
    ),
    "compute": Output(
        title="Cost",
        made_by="tables.cost:compute_table",
        question=COST,
        caption="Parameters, multiply-accumulates of one forward pass over a clip, clips seen in training, and measured"
        " memory. Where the protocol sets a target, parameters are matched within 7 %; all variants of a seed see the"
        " same clips.",
        applies=always,
        measured=("train_s", "clips_per_s", "peak_memory_mib"),
    ),
    "probe": Output(
        title="How far back gradients reach",
        made_by="tables.gradients:probe_table",
        question=REACH,
        caption="*Slope* says how fast the gradient of the last predicted frame's squared error falls with the age of"
        " a context frame, in powers of two per frame, between the second and the last but one: at -1 its norm halves"
        " with each frame, at 0 it does not decay. *X1 / XK* is the norm at the first context frame over that at the"
        " last one, two frames that are special. Both stand beside runs that have learnt alone. *Openness* is the mean"
        " of the highway's carry gate (1 - S), the share of its past that it keeps each step. Columns come before and"
        " after training; brackets are 95 % intervals over seeds.",
        applies=always,
    ),
    "memory": Output(
        title="What networks keep of their past",
        made_by="tables.memory:memory_table",
        question=REACH,
        caption="What beside gradients says how far back a network remembers; no column is ranked against another. *τ*"
        " is a time constant: after so many steps a unit has kept 1/e of what it held, here for the unit in the middle"
        " of its layer and for those that 90 and 99 % do not exceed. *Influence* is by how much the last predicted"
        " frame changes when one digit of a single context frame is exchanged for another. A *Lyapunov exponent* above"
        " 0 says that small changes of the state grow while the network feeds on itself, below 0 that they die out:"
        " exp(exponent) a frame. *Norm* is the absolute gradient of random directions of the last frame. What is of the"
        " whole network stands in the row of its first layer.",
        applies=lambda protocol: protocol.probe.memory,
    ),
    "reach_effects": Output(
        title="Effect on reach",
        made_by="tables.reach_effects:reach_effects_table",
        question=REACH,
        caption="How much a variant changes the slope of the gradient's norm over the context (Δ, above 0: gradients"
        " reach further back) and the norm at the first frame over that at the last (×, above 1), against its"
        " reference: paired by seed and clips, with 95 % t interval. An interval that holds 0, or 1, tells nothing"
        " apart. All of it is exploratory, with no test.",
        applies=always,
    ),
    "reach_definitions": Output(
        title="Effect on reach by definition",
        made_by="tables.reach_effects:reach_definitions_table",
        question=REACH,
        caption="The same effect by six definitions of reach, the headline first. A result that holds for one column"
        " and not for its neighbours hangs on single frames: X1 is the frame at which all states are zero, XK the one"
        " before the network reads its own predictions. Δ above 0 and × above 1: gradients reach further back."
        " Exploratory.",
        applies=always,
    ),
    "reach_error": Output(
        title="Reach against error",
        made_by="tables.reach_effects:reach_error_table",
        question=REACH,
        caption="Does reach after training go with test error? Spearman's rank correlation, between variants and,"
        " within variants, between seeds, with a 95 % bootstrap interval. Below 0, who reaches further back errs less."
        " An interval that holds 0 says that this cannot be told. Exploratory.",
    ),
    "early_reach": Output(
        title="Does the gradient early in training tell the final score?",
        made_by="tables.reach_effects:early_reach_table",
        question=REACH,
        caption="A row a stage of training: the rank correlation of the slope of the gradient norm at that stage with"
        " the final score of the protocol's primary metric. Within variants, a number that is clear of 0 says that,"
        " among seeds of one network, those whose gradient reaches further then end differently.",
        applies=lambda protocol: trains(protocol) and protocol.probe.steps,
    ),
    "paper": Output(
        title="Ours beside published numbers",
        made_by="tables.published:paper_table",
        question=COST,
        caption="Published numbers beside ours. The last column says whether they are compared: only where clips, model"
        " and convention are the same, else why not. Most published numbers were found on other clips, so that a"
        " difference to ours says nothing.",
    ),
    "occlusion": Output(
        title="Error where a digit was hidden",
        made_by="tables.occlusion:occlusion_table",
        question=SCORES,
        caption="A bar hides one digit in the last context frames; the occlusion length, or *gap*, is the number of"
        " frames it was hidden for. The error is that in the box of the hidden digit, in the predicted frames, where"
        " there is no bar. How much it grows with the occlusion length says how well a network remembers; compare rows"
        " within a column. *Rise* is the error at the longest occlusion minus that at the shortest, *Δ* the variant"
        " minus its reference, of the error or of the rise, all seed by seed with 95 % t intervals: exploratory, with"
        " no test.",
        applies=lambda protocol: trains(protocol) and protocol.data.gaps,
    ),
    "beyond": Output(
        title="Long-horizon evaluation",
        made_by="tables.long_horizon:long_horizon_table",
        question=SCORES,
        caption="The same weights roll out past the horizon that they were trained for. *Growth* is the error at a"
        " later frame over that at the trained horizon, seed by seed: 1 is no growth. *Better from* is the first frame"
        " at which a prediction without training has the lower error; ``never`` is as good as it gets.",
        applies=lambda protocol: trains(protocol) and protocol.evaluation.beyond,
    ),
    "learning_rates": Output(
        title="Learning rates",
        made_by="tables.learning_rates:rate_table",
        question=SCORES,
        caption="Error on *validation* clips by learning rate, for variants that differ in nothing else; lower is"
        " better and the best of a row is bold. Rates are chosen here and never on test clips. A best rate at the edge"
        " of the grid asks for one more; a cell says how many of its runs failed.",
        applies=lambda protocol: trains(protocol) and rate_groups(protocol),
    ),
}
"""Name of its files -> table, in the order of the report."""

FIGURES = {
    "scores": Output(
        title="Scores on the test clips",
        made_by="figures.scores:scores",
        question=SCORES,
        caption="One panel a metric, one row a variant: small dots are seeds, the large one their mean, the bar the"
        " 95 % t interval over seeds (from three seeds on). Means over the test clips and predicted frames; the arrow"
        " says which way is better. Rows below the line are predictions without training; where one lies far off, an"
        " arrow gives its value. Last, where it is asked for, the least error possible from the last k context frames,"
        " with the interval of its estimate. Overlapping bars do not say that two variants are equal: see the paired"
        " differences.",
    ),
    "differences": Output(
        title="Paired differences to the reference",
        made_by="figures.scores:differences",
        question=SCORES,
        caption="Each row is a variant minus its reference: small dots are single seeds (same seed, same clips, same"
        " order), the large one their mean, the bar its 95 % t interval. On the grey side of zero the variant is"
        " better. An interval that crosses zero does not tell the two apart. Filled means are the primary metric of"
        " primary pairs, which are tested (p stands in the table of these differences); hollow ones are exploratory.",
    ),
    "highway_effect": Output(
        title="Does the gradient reach further back with the highway?",
        made_by="figures.gradient_norms:highway_effect",
        question=REACH,
        caption="One panel a cell, after training: the L2 norm of the gradient of the last predicted frame's squared"
        " error with respect to context frame t, over the norm at the last context frame, with the highway dashed and"
        " without it solid; geometric mean over clips and seeds that have learnt, band: 95 % t interval over seeds,"
        " logarithmic axis. A line that falls to the left loses the past. Of several pairs of a cell one at equal"
        " learning rates is shown, where there is one. Dotted on moving digits: the weights that a straight line"
        " through the context gives each position; such a bowl is no evidence of a highway.",
        applies=lambda protocol: trains(protocol) and highway_pairs(protocol),
    ),
    "gradient_norm": Output(
        title="How far back the gradient reaches",
        made_by="figures.gradient_norms:gradient_norm",
        question=REACH,
        caption="One panel a state, one line a variant: the L2 norm of the gradient of the last predicted frame's"
        " squared error with respect to that state at time t, over the norm at the last context frame; geometric mean"
        " over clips and, for H, C and M, over layers. A line that falls to the left loses the past; a flat one keeps"
        " it. The axis is logarithmic; grey is the horizon, where the network is fed its own predictions; bands are"
        " 95 % t intervals over seeds. Where a protocol trains, compare the rows: before and after training. Dotted on"
        " the frames of moving digits: the weights that a straight line through the context gives each position. An"
        " ideal extrapolator has such a bowl, which is therefore no evidence of a highway.",
        applies=readable,
    ),
    "gradient_norm_layers": Output(
        title="Gradient norm of H by layer, and of the highway's Z",
        made_by="figures.gradient_norms:gradient_norm_layers",
        question=REACH,
        caption="One panel a variant: the L2 norm of the gradient of the last predicted frame's squared error with"
        " respect to the hidden state H of every layer and the highway's Z at time t, before training dashed, after it"
        " solid, each layer with its marker. Logarithmic axis, geometric mean over clips and seeds; grey is the"
        " horizon. A layer whose line falls steeply to the left passes little of the past on.",
        applies=readable,
    ),
    "gradient_heatmap": Output(
        title="Gradient norm by layer and time",
        made_by="figures.gradient_maps:gradient_heatmap",
        question=REACH,
        caption="One panel a variant: time to the right, layers from bottom to top as they are stacked, numbers for the"
        " layers' H and Z for the highway between two of them. Colour is the power of ten of the norm of the gradient"
        " of the last predicted frame's squared error, relative to all hidden states at the last context frame (white"
        " line), geometric mean over clips and seeds. Dark to the left means that the gradient has vanished there; a"
        " pointed end of the scale holds all that lies lower.",
        applies=readable,
    ),
    "gradient_paths": Output(
        title="By which way the gradient comes",
        made_by="figures.gradient_maps:gradient_paths",
        question=REACH,
        caption="The gradient of the last predicted frame's squared error with respect to the context frames, split by"
        " the way it came: all of it, through memory (H, C, M, Z) alone, through the frames that the network generates"
        " and reads alone. The other way is detached at horizon steps only, so that the two do not add up to all of it."
        " Relative to all of it at the last context frame, logarithmic axis, geometric mean over clips and seeds,"
        " bands: 95 % t intervals over seeds. The lower of two lines adds little.",
        applies=lambda protocol: several_frames(protocol) and readable(protocol),
    ),
    "influence": Output(
        title="How far back the last frame depends on what was seen",
        made_by="figures.influence:influence",
        question=REACH,
        caption="In one context frame t a digit is exchanged for another at the same place, all else stays: the line is"
        " the root mean square change of the last predicted frame, over its pixels and the test clips that the probe"
        " measures. It is finite and causal, where a gradient is a limit: a saturated gate has no slope and may still"
        " pass a digit on. A line that falls to the left forgets; a flat one keeps what it saw, which need not lower"
        " its error. One panel a cell, hue says the cell, line style where the highway sits; logarithmic axis,"
        " geometric mean over seeds, band: 95 % t interval over seeds.",
        applies=lambda protocol: protocol.probe.memory and protocol.data.exchangeable and readable(protocol),
    ),
    "openness": Output(
        title="Openness of the highway",
        made_by="figures.openness:openness_by_frame",
        question=HIGHWAY,
        caption="Openness is the mean of the highway's carry gate (1 - S) at every step: at 1 the highway keeps its"
        " past, at 0 it replaces it by what is new. An untrained gate (thin dashed lines) halves the memory each step"
        " where its bias is 0. Mean over units, clips and seeds, band: 95 % t interval over seeds; grey is the horizon,"
        " where the network is fed its own predictions.",
        applies=readable,
    ),
    "mse_per_frame": Output(
        title="Error by predicted frame",
        made_by="figures.scores:mse_per_frame",
        question=SCORES,
        caption="Error of each predicted frame against time, left with the predictions that need no training, right the"
        " variants alone on their own scale. Squared error summed over the pixels of a frame, of predictions clipped to"
        " [0, 1]; lines are means over test clips and seeds, bands 95 % t intervals. The steeper a line, the faster"
        " errors pile up. Thin dotted lines, where they are asked for, are the least error possible from the last k"
        " context frames, digits known.",
        applies=lambda protocol: several_frames(protocol) and trained_and_readable(protocol),
    ),
    "film": Output(
        title="Predictions of a test clip",
        made_by="figures.clips:clip_of_all",
        question=CLIPS,
        caption="The first test clip that the protocol names, not chosen by its result: context above, then the truth,"
        " then what every variant (its first seed) predicts, with the error of this clip at the right: squared error"
        " summed over the pixels of a frame, mean over the predicted frames. Blur that grows to the right is"
        " uncertainty about the motion; baselines stand below, in grey.",
        applies=trained_and_readable,
    ),
    "reach_against_error": Output(
        title="Reach against error, one dot a run",
        made_by="figures.reach:reach_against_error",
        question=REACH,
        caption="Small dots are runs, large ones means of variants: reach after training to the right, test MSE"
        " upwards; hollow with a highway. Reach is the norm of a gradient at the first context frame over that at the"
        " last: left of the last predicted frame's squared error, right of a fixed random direction of that frame,"
        " since gradients of the error shrink as a model improves. If a longer reach made better predictions, dots"
        " would lie from top left to bottom right. The scatter of one colour is the noise of seeds; the bootstrap"
        " intervals of rank correlations are over variants, which share cells and clips.",
        applies=trained_and_readable,
    ),
    "reach_at_init": Output(
        title="How far back gradients reach before anything is learnt",
        made_by="figures.reach_at_init:reach_at_init",
        question=REACH,
        caption="Reach of untrained networks, one row a variant, grouped by the question it asks: small dots are seeds,"
        " the large one their geometric mean, the bar the 95 % t interval. Colour and shape say the cell; hollow has a"
        " highway. The grey bar is the variant that is alike but for what the heading names. At 1 the first context"
        " frame counts as much as the last. Left the gradient of the last predicted frame's squared error, right that"
        " of a fixed random direction of it.",
        applies=lambda protocol: not trains(protocol),
    ),
    "reach_over_training": Output(
        title="Reach over training",
        made_by="figures.reach:reach_over_training",
        question=REACH,
        caption="Reach by training step (step 0: untrained), one column a cell, one line a variant; axes are"
        " logarithmic, that of steps from its second tick on. It shows whether reach is learnt or was there from the"
        " initial weights. The second row puts a fixed random direction in place of the error, whose gradients shrink"
        " as a model improves. Thin lines mark where the training itself changes: the peak of the learning rate, and"
        " the step from which the horizon shows no true frame. A turn of all variants at the peak says nothing of a"
        " cell. Geometric mean over clips and seeds of runs that have learnt, band: 95 % t interval over seeds.",
        applies=probed_in_training,
    ),
    "openness_over_training": Output(
        title="Gates over training",
        made_by="figures.openness:openness_over_training",
        question=HIGHWAY,
        caption="Openness of the highway, the mean of its carry gate (1 - S), by training step (step 0: untrained), and"
        " the share of gates that are saturated: a sigmoid below 0.05 or above 0.95, a tanh whose size exceeds 0.9. A"
        " saturated gate passes hardly any gradient. Mean over units, steps, clips and seeds, of the saturated ones"
        " over layers and gates too; band: 95 % t interval over seeds. The axis of steps is logarithmic from its second"
        " tick on. Thin lines mark the peak of the learning rate and the step from which the horizon shows no true"
        " frame.",
        applies=probed_in_training,
    ),
    "slots": Output(
        title="Results by place of the highway",
        made_by="figures.ablations:slots",
        question=HIGHWAY,
        caption="Error, where anything is trained, and reach by the slot of the highway: 0 is none, k sits between"
        " layers k and k+1, counted from the bottom. The last panel is the openness of the highway, the mean of its"
        " carry gate (1 - S). Small dots are seeds, large ones their mean (of reach the geometric one), lines 95 % t"
        " intervals over seeds (from three seeds on). To tell two slots apart, read the paired differences, not two"
        " intervals side by side.",
        applies=slot_series,
    ),
    "depth": Output(
        title="Results by depth",
        made_by="figures.ablations:depth",
        question=SCORES,
        caption="Error, where anything is trained, and reach by number of layers, a line for each cell and place of the"
        " highway. Layers are as wide at every depth unless the figure names where they are not, so that parameters and"
        " cost grow with depth. Look at the slope of a line and at the distance of the two lines of one cell. Dots are"
        " seeds; bars are 95 % t intervals over seeds, from three seeds on. The enlarged panel cuts off what lies"
        " further than 1.5 times the distance of the seeds' quartiles from them.",
        applies=depth_series,
    ),
    "gap_against_error": Output(
        title="Error where a digit was hidden",
        made_by="figures.occlusion:gap_against_error",
        question=SCORES,
        caption="Left: error in the box of the hidden digit by how many context frames it was hidden for, the occlusion"
        " length; every network was trained on all of them, and no predicted frame has a bar. Right: how much of it the"
        " bar adds, seed by seed. A rising line forgets; a flat one remembers, or, where the error is high everywhere,"
        " never learnt. Mean over test clips, predicted frames and seeds, band: 95 % t interval over seeds.",
        applies=lambda protocol: protocol.data.gaps and trained_and_readable(protocol),
    ),
    "beyond_horizon": Output(
        title="Long-horizon evaluation",
        made_by="figures.long_horizon:beyond_horizon",
        question=SCORES,
        caption="Error by predicted frame, rolled out past the horizon of training (grey) with the same weights, which"
        " are fed their own predictions. Where a line crosses that of a prediction without training, the network is no"
        " longer worth its training. MSE of predictions clipped to [0, 1], SSIM on uint8 frames with a 7x7 window; mean"
        " over test clips and seeds, band: 95 % t interval over seeds.",
        applies=lambda protocol: protocol.evaluation.beyond and trained_and_readable(protocol),
    ),
}
"""Name of its files -> figure, in the order of the report."""

STATE_GRADIENT = Output(
    title="Gradient of a single state",
    made_by="figures.gradient_norms:state_gradient",
    question=REACH,
    caption="One state (frame X, hidden state H, memory C, zigzag memory M), and only the variants with the highway or"
    " only those without: the toggle *highway* switches between the two, so that the same panel can be compared. The"
    " norm of the gradient at time t over that at the last context frame, before training above, after it below (where"
    " anything is trained); logarithmic axis, geometric mean over seeds, band: 95 % t interval over seeds. A line that"
    " falls to the left loses the past. The scales of the two pictures may differ: read the axes.",
    applies=readable,
)
ANIMATION = Output(
    title="Animation of a test clip",
    made_by="figures.clips:write_animation",
    question=CLIPS,
    caption="The same test clip, moving: the context plays on the left, then truth, prediction and error side by side."
    " In the error, red is too bright and blue too dark. The protocol's first clip and the first seed of the variant:"
    " one clip of one seed, an example and no measurement. Where variants come in pairs, the toggle *highway* shows the"
    " same cell with it and without.",
    applies=trained_and_readable,
)
SETS = {"state_gradient": STATE_GRADIENT, "variant_film": ANIMATION}
"""Name of its caption -> what the report has several of: a picture a state, an animation a variant."""
