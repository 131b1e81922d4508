"""The pipeline. This is the file to read.

        Inputs             LambdaStep       what lies under rows and base model: new rows are no cache hit
           |
        Prepare            ProcessingStep   raw rows -> checked train, validation and test splits
           |
      ChooseMethod          ConditionStep    does Bedrock train, or SageMaker? Each branch is whole; here SageMaker's
           |
           +-- EvaluateBase        ProcessingStep: the base model's scores on the test rows, kept for the next run
           +-- EvaluateChampion    ProcessingStep: those of the version that serves (Champion, a LambdaStep, finds it)
           |
         Train             TrainingStep     base model -> tuned model (LoRA or full, spot, checkpoints)
           |     +-- ClearCheckpoints       LambdaStep: a model that is there needs none
           |
        Evaluate           ProcessingStep   tuned model beside base and champion -> evaluation.json, report.html
           |
      QualityGate          ConditionStep    every rule of pipeline.yaml's gate met?
     yes |     | no
         |     +-- ExplainGate -- GateFailed    LambdaStep, FailStep: which rule was missed, by how much
         |
      Register             ModelStep        a version in the model package group, with metrics and origin
         |
      Describe             LambdaStep       its model card, hashes, gate decision and adapter
         |
   ApprovedAlready         ConditionStep    registered as approved? (otherwise a reviewer's approval deploys it)
     yes |
       Deploy              LambdaStep       start the deployment: canary, alarms, way back

Bedrock's branch: CustomizeBedrock (CallbackStep), EvaluateBedrock (ProcessingStep), then the same from QualityGate on.

print(definition(config))         # JSON: the same bytes on every machine and every day; no account, no network
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from configuration.errors import UsageProblem
from pipelines.regions import region_problem
from pipelines.session import make_session, offline

if TYPE_CHECKING:
    from sagemaker.mlops.workflow.pipeline import Pipeline

    from configuration.config import Config
    from steps.common import Build


def build_pipeline(config: Config) -> Pipeline:
    """The SDK's Pipeline; the code that its jobs need is in `pipeline.sagemaker_session.code`.

    Raises UsageProblem for a region that SageMaker isn't in.
    """
    unknown = region_problem(config.aws.region)
    if unknown:
        raise UsageProblem(f"aws.region: {unknown}")
    with offline(config.aws.region):
        from sagemaker.mlops.workflow.pipeline import Pipeline

        from conditions.choose_method import choose_method_step
        from configuration.parameters import Parameters
        from steps.common import Build
        from steps.prepare import prepare_step
        from steps.storage import inputs_step

        build = Build(config, make_session(config), Parameters(config))

        inputs = inputs_step(build)
        prepare = prepare_step(build, inputs)
        choose = choose_method_step(
            build,
            bedrock=_bedrock_branch(build, prepare),
            sagemaker=_sagemaker_branch(build, inputs, prepare),
        )
        return Pipeline(
            name=config.name,
            parameters=build.parameters.all(),
            steps=[inputs, prepare, choose],
            sagemaker_session=build.session,
            pipeline_experiment_config=None,
        )


def _sagemaker_branch(build: Build, inputs: Any, prepare: Any) -> list[Any]:
    from configuration.gate import compares_champion
    from steps.champion import champion_step
    from steps.evaluate import evaluate_base_step, evaluate_champion_step, evaluate_step
    from steps.register import register_step
    from steps.storage import clear_checkpoints_step
    from steps.train import train_step

    train = train_step(build, inputs, prepare)
    clear_checkpoints = clear_checkpoints_step(build, inputs, train)

    references = [evaluate_base_step(build, inputs, prepare)]
    champions = []
    if compares_champion(build.config):
        champions = [champion_step(build)]
        references.append(evaluate_champion_step(build, champions[0], prepare))
    evaluate = evaluate_step(build, prepare, train, *references)

    register = register_step(build, prepare, train, evaluate)
    package, status = register.properties.ModelPackageArn, register.properties.ModelApprovalStatus
    gate = _gate(build, prepare, evaluate, register, package, status)
    return [*champions, *references, train, clear_checkpoints, evaluate, gate]


def _bedrock_branch(build: Build, prepare: Any) -> list[Any]:
    from steps.bedrock import customize_step, evaluate_bedrock_step, register_bedrock_step

    customize = customize_step(build, prepare)
    evaluate = evaluate_bedrock_step(build, prepare, customize)

    register = register_bedrock_step(build, prepare, customize, evaluate)
    package, status = (register.properties.Outputs[name] for name in ("model_package_arn", "approval"))
    return [customize, evaluate, _gate(build, prepare, evaluate, register, package, status, "Bedrock")]


def _gate(build: Build, prepare: Any, evaluate: Any, register: Any, package: Any, status: Any, branch: str = "") -> Any:
    """QualityGate with all that stands behind it; steps of the other branch have its name at their end."""
    from conditions.quality_gate import approved_already_step, quality_gate_step
    from steps.deploy import deploy_step
    from steps.describe import describe_step
    from steps.explain import explain_step, gate_failed_step

    describe = describe_step(build, package, prepare, evaluate, branch)
    deploy = deploy_step(build, package, branch)
    approved_already = approved_already_step(status, describe, deploy, branch)

    explain = explain_step(build, evaluate, branch)
    gate_failed = gate_failed_step(explain, branch)

    passed, failed = [register, describe, approved_already], [explain, gate_failed]
    return quality_gate_step(evaluate, passed, failed, branch)


def build_definition(config: Config) -> tuple[str, dict[str, Any]]:
    """The definition and the code that it refers to (`{S3 key prefix: configuration.code.Code}`)."""
    pipeline = build_pipeline(config)
    with offline(config.aws.region):
        tree = json.loads(pipeline.definition())
        return json.dumps(_canonical(tree), indent=2, ensure_ascii=False) + "\n", dict(pipeline.sagemaker_session.code)


def definition(config: Config) -> str:
    """The pipeline definition as canonical JSON: order kept where it means something, a newline at the end."""
    return build_definition(config)[0]


def _canonical(value: Any) -> Any:
    """The SDK collects DependsOn in sets, whose order changes with the hash seed."""
    if isinstance(value, dict):
        return {
            key: sorted(child, key=json.dumps) if key == "DependsOn" else _canonical(child)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_canonical(child) for child in value]
    return value
