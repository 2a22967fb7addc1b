// A velatura model of one size after the tone mapper, on the GPU, by NNE's render-graph interface.
// Written for Unreal Engine 5.7, where the names are those of its API reference. Not compiled or run by
// velatura's authors. In 5.5 the delegates are FAfterPassCallbackDelegate and FAfterPassCallbackDelegateArray.
#include <atomic>

#include "GlobalShader.h"
#include "NNE.h"
#include "NNEModelData.h"
#include "NNERuntimeRDG.h"
#include "PostProcess/PostProcessMaterialInputs.h"
#include "RenderGraphUtils.h"
#include "SceneViewExtension.h"
#include "ScreenPass.h"
#include "ShaderParameterStruct.h"

BEGIN_SHADER_PARAMETER_STRUCT(FVelaturaParameters, )
	SHADER_PARAMETER_RDG_TEXTURE(Texture2D<float4>, Picture)
	SHADER_PARAMETER_RDG_BUFFER_UAV(RWBuffer<float>, Planes)
	SHADER_PARAMETER_RDG_BUFFER_SRV(Buffer<float>, Made)
	SHADER_PARAMETER_RDG_TEXTURE_UAV(RWTexture2D<float4>, Result)
	SHADER_PARAMETER(FUintVector2, Origin)
	SHADER_PARAMETER(FUintVector2, Size)
END_SHADER_PARAMETER_STRUCT()

class FVelaturaReadCS : public FGlobalShader
{
	DECLARE_GLOBAL_SHADER(FVelaturaReadCS);
	SHADER_USE_PARAMETER_STRUCT(FVelaturaReadCS, FGlobalShader);
	using FParameters = FVelaturaParameters;
};

class FVelaturaWriteCS : public FGlobalShader
{
	DECLARE_GLOBAL_SHADER(FVelaturaWriteCS);
	SHADER_USE_PARAMETER_STRUCT(FVelaturaWriteCS, FGlobalShader);
	using FParameters = FVelaturaParameters;
};

// "/Velatura" is mapped to the plugin's Shaders folder by AddShaderSourceDirectoryMapping.
IMPLEMENT_GLOBAL_SHADER(FVelaturaReadCS, "/Velatura/VelaturaPass.usf", "ReadPicture", SF_Compute);
IMPLEMENT_GLOBAL_SHADER(FVelaturaWriteCS, "/Velatura/VelaturaPass.usf", "WriteResult", SF_Compute);

// Make it on the game thread and keep the pointer:
// Pass = FSceneViewExtensions::NewExtension<FVelaturaPass>(ModelData);
class FVelaturaPass final : public FSceneViewExtensionBase
{
public:
	FVelaturaPass(const FAutoRegister& Register, UNNEModelData* ModelData) : FSceneViewExtensionBase(Register)
	{
		TWeakInterfacePtr<INNERuntimeRDG> Runtime = UE::NNE::GetRuntime<INNERuntimeRDG>(TEXT("NNERuntimeORTDml"));
		if (!Runtime.IsValid() || Runtime->CanCreateModelRDG(ModelData) != UE::NNE::EResultStatus::Ok)
			return;
		TSharedPtr<UE::NNE::IModelRDG> Model = Runtime->CreateModelRDG(ModelData);
		Instance = Model.IsValid() ? Model->CreateModelInstanceRDG() : nullptr;
		if (!Instance.IsValid())
			return;
		Shape = UE::NNE::FTensorShape::MakeFromSymbolic(Instance->GetInputTensorDescs()[0].GetShape());
		ModelSize = FIntPoint(Shape.GetData()[3], Shape.GetData()[2]);
	}

	virtual void SubscribeToPostProcessingPass(EPostProcessingPass Pass, const FSceneView& View,
		FPostProcessingPassDelegateArray& Callbacks, bool bIsPassEnabled) override
	{
		if (bOn && Pass == EPostProcessingPass::Tonemap && Instance.IsValid())
			Callbacks.Add(FPostProcessingPassDelegate::CreateRaw(this, &FVelaturaPass::Run));
	}

	std::atomic<bool> bOn{true};

private:
	FScreenPassTexture Run(FRDGBuilder& GraphBuilder, const FSceneView& View, const FPostProcessMaterialInputs& Inputs)
	{
		const FScreenPassTexture Color = FScreenPassTexture::CopyFromSlice(
			GraphBuilder, Inputs.GetInput(EPostProcessMaterialInput::SceneColor));
		const FIntPoint Size = Color.ViewRect.Size();
		// Another size would make the runtime build the session again, in the middle of a frame.
		if (Size != ModelSize || !Ready())
			return Inputs.ReturnUntouchedSceneColorForPostProcessing(GraphBuilder);

		const FRDGBufferDesc Desc = FRDGBufferDesc::CreateBufferDesc(sizeof(float), 3 * Size.X * Size.Y);
		FRDGBufferRef Image = GraphBuilder.CreateBuffer(Desc, TEXT("Velatura.Image"));
		FRDGBufferRef Made = GraphBuilder.CreateBuffer(Desc, TEXT("Velatura.Made"));
		FRDGTextureRef Result = GraphBuilder.CreateTexture(FRDGTextureDesc::Create2D(Size, PF_FloatRGBA,
			FClearValueBinding::None, TexCreate_ShaderResource | TexCreate_UAV), TEXT("Velatura.Result"));

		FVelaturaParameters* Read = Parameters(GraphBuilder, Color, Size);
		Read->Planes = GraphBuilder.CreateUAV(Image, PF_R32_FLOAT);
		FVelaturaParameters* Write = Parameters(GraphBuilder, Color, Size);
		Write->Made = GraphBuilder.CreateSRV(Made, PF_R32_FLOAT);
		Write->Result = GraphBuilder.CreateUAV(Result);
		const FIntVector Groups = FComputeShaderUtils::GetGroupCount(Size, 8);
		const FGlobalShaderMap* Shaders = GetGlobalShaderMap(View.GetFeatureLevel());

		FComputeShaderUtils::AddPass(GraphBuilder, RDG_EVENT_NAME("Velatura.Read"),
			TShaderMapRef<FVelaturaReadCS>(Shaders), Read, Groups);
		const UE::NNE::FTensorBindingRDG In{Image}, Out{Made};
		if (Instance->EnqueueRDG(GraphBuilder, {In}, {Out}) != UE::NNE::EResultStatus::Ok)
			return Inputs.ReturnUntouchedSceneColorForPostProcessing(GraphBuilder);
		FComputeShaderUtils::AddPass(GraphBuilder, RDG_EVENT_NAME("Velatura.Write"),
			TShaderMapRef<FVelaturaWriteCS>(Shaders), Write, Groups);

		// The last pass of post processing must write to the override output.
		if (!Inputs.OverrideOutput.IsValid())
			return FScreenPassTexture(Result);
		AddDrawTexturePass(GraphBuilder, View, FScreenPassTexture(Result), Inputs.OverrideOutput);
		return FScreenPassTexture(Inputs.OverrideOutput);
	}

	bool Ready()
	{
		if (!bShaped)
			bShaped = Instance->SetInputTensorShapes({Shape}) == UE::NNE::EResultStatus::Ok;
		return bShaped;
	}

	static FVelaturaParameters* Parameters(FRDGBuilder& GraphBuilder, const FScreenPassTexture& Color, FIntPoint Size)
	{
		FVelaturaParameters* Made = GraphBuilder.AllocParameters<FVelaturaParameters>();
		Made->Picture = Color.Texture;
		Made->Origin = FUintVector2(Color.ViewRect.Min.X, Color.ViewRect.Min.Y);
		Made->Size = FUintVector2(Size.X, Size.Y);
		return Made;
	}

	TSharedPtr<UE::NNE::IModelInstanceRDG> Instance;
	UE::NNE::FTensorShape Shape;
	FIntPoint ModelSize = FIntPoint::ZeroValue;
	bool bShaped = false;
};
