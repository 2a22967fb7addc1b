// A camera's picture through a velatura model, shown on a full-screen RawImage. Written for Unity 6 with
// com.unity.ai.inference 2.2 to 2.6, in URP and HDRP. Not compiled or run by velatura's authors.
using System.Collections.Generic;
using Unity.InferenceEngine;
using UnityEngine;
using UnityEngine.Rendering;
using UnityEngine.UI;

public sealed class VelaturaScreen : MonoBehaviour
{
    public ModelAsset model;            // what `velatura export --for unity` wrote
    public Camera source;               // renders the scene, without the UI
    public RawImage screen;             // full screen, on an overlay canvas below the UI's
    public int width = 640, height = 360;
    public int scale = 1;               // 2 or 4 for the upscalers
    public bool on = true;

    Worker worker;
    Tensor<float> image;
    RenderTexture rendered, shown;

    void OnEnable()
    {
        if (GraphicsSettings.currentRenderPipeline == null)
            Debug.LogError("VelaturaScreen needs URP or HDRP: the built-in pipeline never calls it.", this);
        // Half floats hold linear light; the model's input and output are sRGB numbers. The two
        // conversions are made part of the model, so that no shader and no texture format matters.
        bool linear = QualitySettings.activeColorSpace == ColorSpace.Linear;
        var format = linear ? RenderTextureFormat.ARGBHalf : RenderTextureFormat.ARGB32;
        rendered = new RenderTexture(width, height, 24, format);
        shown = new RenderTexture(width * scale, height * scale, 0, format) { enableRandomWrite = true };
        shown.Create();
        source.targetTexture = rendered;

        Model net = ModelLoader.Load(model);
        var graph = new FunctionalGraph();
        FunctionalTensor light = graph.AddInputs(net)[0];
        FunctionalTensor given = Functional.Clamp(light, 0f, 1f);
        FunctionalTensor made = Functional.Forward(net, linear ? Encoded(given) : given)[0];
        graph.AddOutput(linear ? Decoded(made) : made, "result");
        worker = new Worker(graph.Compile(), BackendType.GPUCompute);
        image = new Tensor<float>(new TensorShape(1, 3, height, width));
        RenderPipelineManager.endContextRendering += AfterRendering;
    }

    static FunctionalTensor Encoded(FunctionalTensor x) =>
        Functional.Where(x <= 0.0031308f, x * 12.92f, Functional.Pow(x, 1f / 2.4f) * 1.055f + -0.055f);

    static FunctionalTensor Decoded(FunctionalTensor x) =>
        Functional.Where(x <= 0.04045f, x / 12.92f, Functional.Pow((x + 0.055f) / 1.055f, 2.4f));

    // URP and HDRP call it, the built-in pipeline does not.
    void AfterRendering(ScriptableRenderContext context, List<Camera> cameras)
    {
        if (cameras.Contains(source))
            Run();
    }

    void Run()
    {
        screen.texture = on ? shown : rendered;
        if (!on)
            return;
        TextureConverter.ToTensor(rendered, image);
        worker.Schedule(image);
        // Stays on the GPU: nothing is read back, so the game's thread does not wait.
        TextureConverter.RenderToTexture(worker.PeekOutput() as Tensor<float>, shown);
    }

    void OnDisable()
    {
        RenderPipelineManager.endContextRendering -= AfterRendering;
        source.targetTexture = null;
        image.Dispose();
        worker.Dispose();
        rendered.Release();
        shown.Release();
    }
}
